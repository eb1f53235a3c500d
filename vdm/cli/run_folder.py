"""Where a run lives: one folder for all of its processes, and the same each time they are started again."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from vdm.config import ConfigError
from vdm.training.slurm import SlurmJob


def register_run_folder() -> None:
    """Let YAMLs choose a run's folder with ``${vdm.run_folder:RESUME,PARENT,TIME}``."""
    OmegaConf.register_new_resolver("vdm.run_folder", _run_folder, replace=True)


def _run_folder(resume: str | None, parent: str, time: str) -> str:
    if resume is None:
        return f"{parent}/{shared_name() or time}"
    from vdm.checkpoints.runs import run_folder

    try:
        return str(run_folder(Path(resume)))
    except ValueError as error:
        raise ConfigError(f"resume: {error}") from error


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
