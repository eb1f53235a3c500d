"""The starts of one job: what they have in common, and what one must know of those before it.

SLURM and torchrun run the same command again where one of its starts was interrupted or has failed.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from vdm.checkpoints.layout import checkpoint_folder
from vdm.config import ConfigError
from vdm.files import write_file
from vdm.training.slurm import SlurmJob

_TAKEN_NAME = "resumed_by"
"""File in a run's folder: of each job that was told to go on from one of the run's checkpoints, and does, a line."""


def is_restart() -> bool:
    """Whether the same command has run before, and was started again by SLURM or torchrun."""
    job = SlurmJob.current()
    return (job is not None and job.restarts > 0) or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def note_taken(run: Path, checkpoint: Path) -> None:
    """Record that this job goes on from one of a run's checkpoints, once later ones are set aside.

    From then on the latest one is the job's own. Without a job, which alone may be started again, nothing is recorded.
    """
    line = _line(checkpoint)
    if line is not None and line not in _taken(run):
        write_file(run / _TAKEN_NAME, "".join(f"{each}\n" for each in [*_taken(run), line]))


def is_to_be_taken(run: Path, checkpoint: Path) -> bool:
    """Tell whether a job that is to go on from a checkpoint has yet to do so; false if it is none of the run's."""
    is_own = checkpoint.resolve().parent == checkpoint_folder(run, 0).resolve().parent
    return is_own and _line(checkpoint) not in _taken(run)


def _taken(run: Path) -> list[str]:
    file = run / _TAKEN_NAME
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _line(checkpoint: Path) -> str | None:
    """Return what is recorded of this job, the same in all of its processes and starts; none if there is no job."""
    job = SlurmJob.current()
    try:
        name = shared_name() if job is None else f"slurm-{job.name}"  # torchrun inside a job is another at each start
    except ConfigError:  # of torchrun's nodes, which have no more in common
        name = "torchrun"
    return None if name is None else f"{name} {checkpoint.name}"


def shared_name(variables: Mapping[str, str] = os.environ) -> str | None:
    """Return a name on which processes agree that were started apart; none if this one is the first or only one.

    Raises:
        ConfigError: If torchrun's nodes have nothing in common to name a folder by.
    """
    if "TORCHELASTIC_RUN_ID" in variables:
        if variables["TORCHELASTIC_RUN_ID"] != "none":
            return f"torchrun-{variables['TORCHELASTIC_RUN_ID']}"
        if int(variables.get("GROUP_WORLD_SIZE", "1")) == 1:
            return _start_of(os.getppid())
        raise ConfigError("hydra.run.dir: give one folder for all nodes, or torchrun an --rdzv-id")
    job = SlurmJob.current(variables)
    return None if job is None else f"slurm-{job.name}" + ("" if job.step is None else f".{job.step}")


def _start_of(process: int) -> str:
    """Return the time at which a process was started, in the form of a run's name, and the process's number."""
    try:
        # Linux: field 22 of stat, in ticks after the system's start; field 2, the name, may have spaces.
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        raise ConfigError("hydra.run.dir: give a folder, or torchrun an --rdzv-id") from None
    (system_start,) = (int(line.split()[1]) for line in lines if line.startswith("btime "))
    start = datetime.fromtimestamp(system_start + ticks // os.sysconf("SC_CLK_TCK"))
    return f"{start:%Y-%m-%d_%H-%M-%S}_{process}"
