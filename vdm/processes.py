"""Which of a job's processes this one is, as far as launchers say so beforehand."""

import os


def is_first_of_machine() -> bool:
    """Tell whether no process of the same job on this machine comes before this one."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0) == 0
