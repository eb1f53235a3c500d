"""The folder of a run, and where it keeps its files.

::

    runs/NAME/TIME/
        config.yaml                  the whole configuration, resolved
        versions.json                versions of code and packages, data and hardware, once per start
        history.jsonl                starts and ends of training, see history.py
        checkpoints/step=00000500/   see snapshot.py
        frozen/step=00000500/        weights of the model that are not trained, if any, saved once: see frozen.py
        averages/step=00000500/      snapshots of power-function EMAs, one kind of pieces for each: see pieces.py
"""

import re
from pathlib import Path

from vdm.checkpoints.folder import REPLACED_SUFFIX
from vdm.found_instead import found_instead, is_export

CONFIG_NAME = "config.yaml"
CHECKPOINTS_NAME, EMA_SNAPSHOTS_NAME, FROZEN_NAME = "checkpoints", "averages", "frozen"


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the folder of a run's checkpoint after ``step`` optimizer steps."""
    return run / CHECKPOINTS_NAME / f"step={step:08d}"


def ema_snapshot_folder(run: Path, step: int) -> Path:
    """Return the folder of a run's EMA snapshot after ``step`` optimizer steps."""
    return run / EMA_SNAPSHOTS_NAME / f"step={step:08d}"


def frozen_weights_folder(run: Path, step: int) -> Path:
    """Return the folder of weights that are not trained, saved with a run's checkpoint after ``step`` steps."""
    return run / FROZEN_NAME / f"step={step:08d}"


def run_folder(path: Path) -> Path:
    """Return the folder of the run that ``path``, a run or one of its checkpoints, belongs to.

    Raises:
        ValueError: If it belongs to none. An export, which has a run's configuration, is none.
    """
    folder = _with_config(path)
    if is_export(folder):
        raise ValueError(f"{path}: not a run{found_instead(folder)}")
    return folder


def config_file(path: Path) -> Path:
    """Return the file with the configuration of a run, of the run of a checkpoint, or of an export.

    Raises:
        ValueError: If there is none.
    """
    return _with_config(path) / CONFIG_NAME


def _with_config(path: Path) -> Path:
    """Return the folder of a run, of the run of a checkpoint, or of an export."""
    path = without_link(path)
    # A checkpoint holds no configuration: one that somebody put there must not stand in for the run's.
    whole = path if len(path.parts) > 2 else path.absolute()
    folder = whole.parent.parent if whole.parent.name == CHECKPOINTS_NAME else path
    if (folder / CONFIG_NAME).is_file():
        return folder
    missing = "" if path.exists() else ", nor such a folder"
    raise ValueError(f"{path}: not a run: there is no {CONFIG_NAME}{missing}{found_instead(path)}")


def without_link(path: Path) -> Path:
    """Return the target of a symbolic link to a run's checkpoint, whose name and place tell its step and its run.

    Any other path is returned unchanged.
    """
    if not path.is_symlink():
        return path
    target = path.resolve()
    is_checkpoint = target.parent.name == CHECKPOINTS_NAME and (target.parent.parent / CONFIG_NAME).is_file()
    return target if is_checkpoint else path


def folder_for_results(run: Path, *names: str) -> Path:
    """Return a folder inside a run's folder, to be written to.

    Raises:
        ValueError: If it is a link that leads out of the run's folder, as in a run from an untrusted source.
    """
    folder = run.joinpath(*names)
    if not folder.resolve().is_relative_to(run.resolve()):
        raise ValueError(f"{folder}: a link that leads out of {run}, to {folder.resolve()}; choose by output=FOLDER")
    return folder


def step_of(checkpoint: Path) -> int:
    """Return the number of optimizer steps after which a checkpoint was saved."""
    return int(checkpoint.name.removesuffix(REPLACED_SUFFIX).removeprefix("step="))


def checkpoints_of(run: Path) -> list[Path]:
    """Return a run's checkpoints in order of steps; a former version comes before the one that replaces it."""
    return _by_step(run / CHECKPOINTS_NAME)


def ema_snapshots_of(run: Path) -> list[Path]:
    """Return a run's EMA snapshots in order of steps."""
    return _by_step(run / EMA_SNAPSHOTS_NAME)


def _by_step(folder: Path) -> list[Path]:
    pattern = re.compile(rf"step=\d+{REPLACED_SUFFIX}?")
    found = [path for path in folder.glob("step=*") if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: (step_of(path), not path.name.endswith(REPLACED_SUFFIX)))
