"""Which of a job's processes this one is, how it ends with the process that started it, and how others have ended."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, MutableMapping

_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Of torchrun, of Lightning's launcher and of those who start its nodes by hand, and of srun."""
_MEETING_PLACE = ("MASTER_ADDR", "MASTER_PORT")


class ProcessDiedError(RuntimeError):
    """A process that this one can't do without has died; the message, of one line, is for users."""


def is_first_of_run() -> bool:
    """Tell whether no process of the same run comes before this one."""
    return all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)


def is_first_of_machine() -> bool:
    """Tell whether no process of the same job on this machine comes before this one."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) == 0


def is_from_torchrun(variables: Mapping[str, str]) -> bool:
    """Tell whether ``torchrun`` started a process: it gives all of its variables, and a rank below their number."""
    return "TORCHELASTIC_RUN_ID" in variables and _is_numbered(
        variables, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    )


def keep_current_folder_off_path() -> None:
    """Keep the current folder off the path on which Python processes that this one starts look for modules.

    ``multiprocessing`` starts its helpers, and submitit the processes of a SLURM job, with that folder before the
    standard library: what somebody downloaded into it would be imported in the place of Python's own modules.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def forget_other_launches(variables: MutableMapping[str, str] = os.environ) -> None:
    """Remove ranks that were left over in the environment of a process which nobody started as one of several.

    Lightning takes its rank from any one variable it finds, when it is imported; so this comes before. Whoever starts
    several processes gives each a whole set of variables: ``torchrun``, ``srun``, ``jsrun``, and Lightning or a user
    who does so by hand.
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
    """Tell whether variables, of which every second is a size, are whole numbers, and each rank is below its size."""
    values = [variables.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values):
        return False
    numbers = list(map(int, values))
    return all(rank < size for rank, size in zip(numbers[::2], numbers[1::2], strict=False))


def _remove(variables: MutableMapping[str, str], *names: str) -> None:
    for name in names:
        variables.pop(name, None)


def describe_exit(code: int | None) -> str | None:
    """Say in words how a process ended."""
    if code is None:
        return None
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "real-time"
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}){hint}"


def end_with_parent() -> None:
    """End this process, started by ``multiprocessing``, as soon as the one that started it ends, however that ends.

    Neither sees the other's end by itself: between them is a fork server, which lives as long as any of its processes.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "nobody started this process"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
