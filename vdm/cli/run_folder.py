"""The folder of a run: one for all of its processes, and the same when they are started again."""

import os
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vdm.cli.sweeps import differing, run_name
from vdm.config import ConfigError
from vdm.training.starts import shared_name

CHECK_PREFIX = ".check-"
"""Prefix of the folder in which a run is rehearsed."""


def register_run_folder(is_to_run: bool = True) -> None:
    """Register the resolvers by which YAMLs name a run's folder.

    - ``${vdm.run_folder:RESUME,PARENT,TIME}``: the folder of a run.
    - ``${vdm.new_folder:PARENT,TIME}``: the folder of a sweep, with ``${vdm.sweep_run:}`` for a run in it.
    - ``${vdm.check_folder:RESUME,PARENT}``: the hidden folder of a rehearsal, on the storage of the run.

    Args:
        is_to_run: Whether the command runs, rather than only shows its configuration. A folder named by the time is
            then created at once, so that two commands started in one second get different ones.
    """
    chosen: dict[tuple[str, str], str] = {}  # resolvers are called many times

    def new_folder(parent: str, time: str) -> str:
        if not is_to_run:
            return f"{parent}/{time}"
        if (parent, time) not in chosen:
            chosen[parent, time] = _make_new_folder(parent, time)
        return chosen[parent, time]

    def run_folder(resume: str | None, parent: str, time: str) -> str:
        if resume is not None:
            return _folder_of(resume)
        shared = shared_name()
        return new_folder(parent, time) if shared is None else f"{parent}/{shared}"

    def check_folder(resume: str | None, parent: str) -> str:
        beside = parent if resume is None else str(Path(_folder_of(resume)).parent)
        return f"{beside}/{CHECK_PREFIX}{shared_name() or os.getpid()}"

    OmegaConf.register_new_resolver("vdm.check_folder", check_folder, replace=True)

    def sweep_run(*, _root_: Any) -> str:
        hydra = _root_.hydra
        if OmegaConf.is_missing(hydra.job, "num"):  # not in a run of a sweep
            return "NUMBER"
        return run_name(hydra.job.num, differing(hydra.job, hydra.overrides.task))

    OmegaConf.register_new_resolver("vdm.sweep_run", sweep_run, replace=True)
    OmegaConf.register_new_resolver("vdm.run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("vdm.new_folder", new_folder, replace=True)


def _folder_of(resume: str) -> str:
    from vdm.checkpoints.layout import run_folder

    try:
        return str(run_folder(Path(resume)))
    except ValueError as error:
        raise ConfigError(f"resume: {error}") from error


def _make_new_folder(parent: str, time: str) -> str:
    """Make a new folder named by the time, with a number if that name is taken."""
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = f"{parent}/{time}" + ("" if number == 1 else f"_{number}")
            try:
                Path(folder).mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ConfigError(f"{error.filename or parent}: can't be made a run's folder: {error.strerror}") from error
    raise AssertionError("there are always further numbers")
