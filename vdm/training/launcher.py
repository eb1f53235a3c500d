"""The launcher of a machine's processes, without torchrun or srun: when one of them ends early, all end."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.plugins import ClusterEnvironment

from vdm.processes import describe_exit
from vdm.training.lightning_internals import ScriptLauncher
from vdm.training.rendezvous import check_rendezvous

_PARENT = "VDM_LAUNCHER"
"""Environment variable with the id of the process that started this one."""
_PR_SET_PDEATHSIG = 1


class TrainingLauncher(ScriptLauncher):
    """Starts the processes of the further local ranks, and watches them until the watchdog does.

    Args:
        cluster_environment: Lightning's interface to the processes.
        num_processes: Processes on this machine.
        num_nodes: Number of machines.
        timeout_seconds: How long a process waits for the first one.
    """

    def __init__(
        self, cluster_environment: ClusterEnvironment, num_processes: int, num_nodes: int, timeout_seconds: float
    ) -> None:
        super().__init__(cluster_environment, num_processes, num_nodes)
        self._timeout_seconds = timeout_seconds
        self.children: list[subprocess.Popen[bytes]] = []
        self._handed_over = threading.Event()

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start the further processes, unless another launcher has, and call a function in this one.

        Raises:
            ConfigError: If processes can't meet at the configured address.
        """
        if not torch.distributed.is_initialized():  # else they have met already, in an earlier run of a sweep
            check_rendezvous(self.cluster_environment, self.num_nodes, self._timeout_seconds)
        return super().launch(function, *args, **kwargs)

    def start_processes(self) -> list[subprocess.Popen[bytes]]:
        """Start the processes of the further local ranks, and watch over them."""
        os.environ[_PARENT] = str(os.getpid())
        self.children = super().start_processes()
        threading.Thread(target=self._watch, name="launcher", daemon=True).start()
        return self.children

    def kill(self, signum: int) -> None:
        """Send a signal to all started processes."""
        for child in self.children:
            child.send_signal(signum)

    def hand_over(self) -> None:
        """Stop watching: the processes are connected, and watch each other."""
        self._handed_over.set()

    def how_died(self, rank: int) -> str | None:
        """Return how a process ended, if this process started it and it has ended."""
        first = self.cluster_environment.global_rank()
        if not first < rank <= first + len(self.children):
            return None
        child = self.children[rank - first - 1]
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1)  # its connection may end a moment before the process
        return describe_exit(child.returncode)

    def _watch(self) -> None:
        """End all processes when one ends before they watch each other."""
        while not self._handed_over.wait(0.2):
            for rank, child in enumerate(self.children, start=1):
                if child.poll():
                    text = f"Local rank {rank} (process {child.pid}) died before training began: "
                    os.write(
                        2, f"\n{text}{describe_exit(child.returncode)}. All other processes end with it.\n".encode()
                    )
                    self.kill(signal.SIGKILL)
                    sys.stdout.flush()
                    os._exit(1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, if the parent is the launcher."""
    parent = os.environ.get(_PARENT)
    if parent is None or os.environ.get("LOCAL_RANK", "0") == "0" or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before this call
        os._exit(1)


def outlive_parent() -> None:
    """Undo ``die_with_parent``: training is done, and the parent may end first."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
