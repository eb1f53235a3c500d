"""The processes of a job: ranks in the environment, ending with the parent, and descriptions of exits."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, MutableMapping

_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Variables of torchrun, of Lightning's launcher, of nodes that are started by hand, and of srun."""
_MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")


class ProcessDiedError(RuntimeError):
    """A process that this one needs has died; the message is one line for users."""


def is_first_of_run() -> bool:
    """Tell whether this is the first process of its run."""
    return all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)


def is_first_of_machine() -> bool:
    """Tell whether this is the first process of its job on this machine."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) == 0


def is_from_torchrun(variables: Mapping[str, str]) -> bool:
    """Tell whether ``torchrun`` started a process: then all of its variables are set, with valid ranks."""
    return "TORCHELASTIC_RUN_ID" in variables and _is_numbered(
        variables, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    )


def keep_current_folder_off_path() -> None:
    """Keep the current folder off the path on which Python processes that this one starts look for modules.

    ``multiprocessing`` starts its helpers, and submitit the processes of a SLURM job, with that folder before the
    standard library: a file that was downloaded into it could replace one of Python's own modules.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def forget_other_launches(variables: MutableMapping[str, str] = os.environ) -> None:
    """Remove ranks that another launch left in the environment of a process that runs alone.

    Lightning takes its rank from any single variable that it finds when it is imported, so this must come first. A
    process that really is one of several has a whole set of variables, from ``torchrun``, ``srun``, ``jsrun``,
    Lightning, or a user who starts the processes by hand.
    """
    is_by_hand = variables.get("WORLD_SIZE") != "1" and _is_numbered(variables, "LOCAL_RANK", "WORLD_SIZE")
    meets = all(variables.get(name) for name in _MEETING_PLACE)
    if not (meets and (is_from_torchrun(variables) or is_by_hand)):
        _remove(variables, *_OF_TORCHRUN, *(name for name in variables if name.startswith("TORCHELASTIC_")))
    if not meets:
        _remove(variables, "NODE_RANK")
    is_step = "SLURM_JOB_ID" in variables and "SLURM_STEP_ID" in variables
    if not (is_step and _is_numbered(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")):
        _remove(variables, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    if not ("LSB_JOBID" in variables and _is_numbered(variables, "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")):
        _remove(variables, "JSM_NAMESPACE_RANK")


def _is_numbered(variables: Mapping[str, str], *names: str) -> bool:
    """Tell whether variables, in pairs of a rank and a size, are whole numbers, and each rank is below its size."""
    values = [variables.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values):
        return False
    numbers = list(map(int, values))
    return all(rank < size for rank, size in zip(numbers[::2], numbers[1::2], strict=False))


def _remove(variables: MutableMapping[str, str], *names: str) -> None:
    for name in names:
        variables.pop(name, None)


def describe_exit(code: int | None) -> str | None:
    """Describe how a process ended, by its exit code; ``None`` if it has not ended."""
    if code is None:
        return None
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "real-time"
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}){hint}"


def end_with_parent() -> None:
    """End this process, started by ``multiprocessing``, as soon as its parent ends for any reason.

    The kernel does not do so: the process is a child of a fork server, which lives as long as any of its children.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "nobody started this process"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
