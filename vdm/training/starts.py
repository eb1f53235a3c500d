"""Restarts of a job: the name that all of its starts share, and whether an earlier one has begun the work.

SLURM and torchrun run the same command again if it was interrupted or failed.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from vdm.checkpoints.layout import checkpoint_folder
from vdm.config import ConfigError
from vdm.files import write_file
from vdm.training.slurm import SlurmJob

_RESUMES_NAME = "resumed_by"
"""File in a run's folder, with a line for each job that resumed from a chosen checkpoint of the run."""


def is_restart() -> bool:
    """Tell whether SLURM or torchrun has started this command before."""
    job = SlurmJob.current()
    return (job is not None and job.restarts > 0) or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def record_resume(run: Path, checkpoint: Path) -> None:
    """Record that this job resumed from a chosen checkpoint, once later checkpoints are set aside.

    A restart of the job then resumes from the run's latest checkpoint, which is the job's own. Nothing is recorded
    without a job, because only jobs are restarted.
    """
    line = _line(checkpoint)
    if line is not None and line not in _resumes(run):
        write_file(run / _RESUMES_NAME, "".join(f"{each}\n" for each in [*_resumes(run), line]))


def has_yet_to_resume(run: Path, checkpoint: Path) -> bool:
    """Tell whether this job has yet to resume from a chosen checkpoint; false if the checkpoint is not of the run."""
    is_own = checkpoint.resolve().parent == checkpoint_folder(run, 0).resolve().parent
    return is_own and _line(checkpoint) not in _resumes(run)


def _resumes(run: Path) -> list[str]:
    file = run / _RESUMES_NAME
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _line(checkpoint: Path) -> str | None:
    """Return this job's line, the same in all of its processes and starts; ``None`` without a job."""
    job = SlurmJob.current()
    try:
        name = shared_name() if job is None else f"slurm-{job.name}"  # torchrun's name differs at each start of a job
    except ConfigError:  # torchrun's nodes have no common name
        name = "torchrun"
    return None if name is None else f"{name} {checkpoint.name}"


def shared_name(variables: Mapping[str, str] = os.environ) -> str | None:
    """Return a name that separately started processes have in common; ``None`` if no launcher started this process.

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
    """Return the start time of a process, in the form of a run's name, and its process id."""
    try:
        # Linux: field 22 of stat, in ticks since boot; field 2, the name, may contain spaces.
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        raise ConfigError("hydra.run.dir: give a folder, or torchrun an --rdzv-id") from None
    (system_start,) = (int(line.split()[1]) for line in lines if line.startswith("btime "))
    start = datetime.fromtimestamp(system_start + ticks // os.sysconf("SC_CLK_TCK"))
    return f"{start:%Y-%m-%d_%H-%M-%S}_{process}"
