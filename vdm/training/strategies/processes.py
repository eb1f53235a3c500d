"""What strategies of several processes have in common: how processes are started, find each other and give up."""

from datetime import timedelta
from typing import Any, Literal

from lightning.pytorch.strategies import DDPStrategy

from vdm.training.launcher import TrainingLauncher
from vdm.training.strategies.base import PartwiseStrategy

Backend = Literal["nccl", "gloo"]


class ProcessGroupStrategy(PartwiseStrategy, DDPStrategy):
    """A strategy of several processes; of Lightning's DDP it keeps all that concerns these.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: After how long a process that waits for others gives up.
        ddp: Options of DDP's wrapper of the model.
    """

    def __init__(self, process_group_backend: Backend | None, timeout_seconds: float, **ddp: Any) -> None:
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be > 0, but is {timeout_seconds}")
        timeout = timedelta(seconds=timeout_seconds)
        super().__init__(process_group_backend=process_group_backend, timeout=timeout, **ddp)

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = TrainingLauncher(self.cluster_environment, self.num_processes, self.num_nodes)
