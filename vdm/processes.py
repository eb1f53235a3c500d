"""Which of a job's processes this one is, as far as launchers say so beforehand."""

import os

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Of torchrun, of Lightning's launcher and of those who start its nodes by hand, and of srun."""


def is_first_of_run() -> bool:
    """Tell whether no process of the same run comes before this one."""
    return all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)


def is_first_of_machine() -> bool:
    """Tell whether no process of the same job on this machine comes before this one."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) == 0
