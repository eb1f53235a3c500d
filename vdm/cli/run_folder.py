"""Where a run lives: one folder for all of its processes, and the same each time they are started again."""

from pathlib import Path

from omegaconf import OmegaConf

from vdm.config import ConfigError
from vdm.training.starts import shared_name


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
