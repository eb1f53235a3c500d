"""A run's folder: its configuration, the versions it was made with, and its checkpoints.

::

    runs/NAME/TIME/
        config.yaml                  the whole configuration, resolved
        versions.json                code and packages, once per start
        checkpoints/step=00000500/   see snapshot.py
        averages/step=00000500/      power-function averages alone, one kind of pieces for each: see pieces.py
"""

import json
import logging
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.checkout import git_version
from vdm.checkpoints.folder import REPLACED_SUFFIX, remove_folder, verify_folder
from vdm.config.moved import modernized
from vdm.files import write_file
from vdm.found_instead import found_instead, is_export
from vdm.outside import dump_yaml, read_yaml
from vdm.records import read_record

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_NAME, VERSIONS_NAME = "config.yaml", "versions.json"
FORMAT_KEY, FORMAT = "run_format", 1
"""Of ``config.yaml`` and the folder around it; where the key is missing it is 1."""
CHECKPOINTS_NAME, EMA_SNAPSHOTS_NAME = "checkpoints", "averages"

_OBJECTIVE = "objective."
"""What the names of weights begin with that are no part of the model."""
_log = logging.getLogger(__name__)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where a run's checkpoint after ``step`` optimizer steps lies."""
    return run / CHECKPOINTS_NAME / f"step={step:08d}"


def ema_snapshot_folder(run: Path, step: int) -> Path:
    """Return where a run's snapshot of power-function averages after ``step`` optimizer steps lies."""
    return run / EMA_SNAPSHOTS_NAME / f"step={step:08d}"


def run_folder(path: Path) -> Path:
    """Return the folder of the run that ``path``, a run or one of its checkpoints, belongs to.

    Raises:
        ValueError: If it belongs to none. An export, which has a run's configuration, is none.
    """
    folder = _with_config(path)
    if is_export(folder):
        raise ValueError(f"{path}: not a run{found_instead(folder)}")
    return folder


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
    """Return where a symbolic link to a run's checkpoint leads: its own name and place tell its step and its run.

    Anything else is returned as it is.
    """
    if not path.is_symlink():
        return path
    target = path.resolve()
    is_checkpoint = target.parent.name == CHECKPOINTS_NAME and (target.parent.parent / CONFIG_NAME).is_file()
    return target if is_checkpoint else path


def folder_for_results(run: Path, *names: str) -> Path:
    """Return a folder inside a run's folder, in which to write.

    Raises:
        ValueError: If a link there, in a run that may be anybody's, leads elsewhere.
    """
    folder = run.joinpath(*names)
    if not folder.resolve().is_relative_to(run.resolve()):
        raise ValueError(f"{folder}: a link that leads out of {run}, to {folder.resolve()}; choose by output=FOLDER")
    return folder


def config_file(path: Path) -> Path:
    """Return the file with the configuration of a run, of the run of a checkpoint, or of an export.

    Raises:
        ValueError: If there is none.
    """
    return _with_config(path) / CONFIG_NAME


def record_run(run: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration, and add the versions of code and packages to those of earlier starts."""
    write_config(run, config)
    path = run / VERSIONS_NAME
    try:
        starts = versions_of(run)
    except ValueError as error:
        aside = path.with_name(f"{VERSIONS_NAME}.damaged-{datetime.now():%Y-%m-%d_%H-%M-%S}")
        path.rename(aside)
        _log.warning("%s; it is only a log: set aside as %s, and begun anew", error, aside.name)
        starts = []
    write_file(path, json.dumps([*starts, _versions()], indent=1))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration of a run, or of an export."""
    write_file(folder / CONFIG_NAME, dump_yaml({**config, FORMAT_KEY: FORMAT}))


class Git(TypedDict):
    """The checkout that a run was started from."""

    commit: str


class Versions(TypedDict):
    """What a run was started with."""

    packages: dict[str, str]
    git: NotRequired[Git | None]


def versions_of(run: Path) -> list[Versions]:
    """Return what each start of a run was made with.

    Raises:
        ValueError: If the file is damaged.
    """
    path = run / VERSIONS_NAME
    return read_record(path, list[Versions]) if path.exists() else []


def load_config(path: Path) -> dict[str, Any]:
    """Return the whole configuration of a run, or of the run of a checkpoint; nothing in it is interpolated.

    What an earlier version recorded comes by its present names: see ``vdm.config.moved``.

    It is to be built by ``vdm train resume=RUN`` alone, which trusts the run as the user's own. Everybody else reads
    ``RunConfig``.

    Raises:
        ValueError: In one line, if there is none, it is no plain mapping, or a newer version wrote it.
    """
    file = config_file(path)
    config = read_yaml(file)
    written = config.pop(FORMAT_KEY, 1)
    if written != FORMAT:
        raise ValueError(
            f"{file}: {FORMAT_KEY}={written}: written by another version of vdm than this one, which reads {FORMAT}"
        )
    return modernized(config)


def latest_checkpoint(path: Path) -> Path:
    """Return a run's latest whole checkpoint, or ``path`` itself where it is a whole checkpoint.

    Damaged ones are passed over with a warning.

    Raises:
        ValueError: If there is none, or ``path`` is a damaged checkpoint.
    """
    return first_whole(checkpoints_to_try(path), verify_folder)


def checkpoints_to_try(path: Path) -> list[Path]:
    """Return a run's checkpoints from the latest on, or ``path`` itself where it is a checkpoint.

    Raises:
        ValueError: If there are none.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    if (path / CONFIG_NAME).is_file():
        path = run_folder(path)
    if not (path / CHECKPOINTS_NAME).is_dir():
        return [without_link(path)]
    found = checkpoints_of(path)[::-1]
    if not found:
        raise ValueError(f"{path / CHECKPOINTS_NAME}: there is no whole checkpoint")
    return found


def first_whole(folders: Sequence[Path], verify: Callable[[Path], None]) -> Path:
    """Return the first folder that ``verify`` finds whole; those before it are passed over with a warning.

    Raises:
        ValueError: If none is whole; of a single one, why.
    """
    for folder in folders:
        try:
            verify(folder)
        except ValueError as error:
            if len(folders) == 1:
                raise
            _log.warning("Passing over a checkpoint: %s", error)
        else:
            return folder
    raise ValueError(f"{folders[0].parent}: there is no whole checkpoint")


def load_weights(path: Path, ema: bool | str = True) -> dict[str, "Tensor"]:
    """Return a checkpoint's weights of the model, or those of a run's latest one, by name, what LoRA adds merged in.

    The arguments are those of ``saved_weights``.
    """
    return merged_weights(latest_checkpoint(path), ema)


def merged_weights(checkpoint: Path, ema: bool | str = True) -> dict[str, "Tensor"]:
    """Return what ``load_weights`` does of a checkpoint that is known to be whole."""
    from vdm.models.lora import merged  # imports torch

    return merged(_weights(checkpoint, ema))


def merged_shapes(checkpoint: Path) -> dict[str, list[int]]:
    """Return the shapes of what ``merged_weights`` returns, without reading it."""
    from vdm.checkpoints.snapshot import SavedCheckpoint
    from vdm.models.lora import is_added

    shapes = SavedCheckpoint(checkpoint).weights.shapes
    return {name: list(shape) for name, shape in shapes.items() if not is_added(name) and not is_of_objective(name)}


def saved_weights(path: Path, ema: bool | str = True) -> dict[str, "Tensor"]:
    """Return a checkpoint's weights of the model, or those of a run's latest one, by name, as they were saved.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Take averaged weights for those that have an average; a text names one of several averages.

    Raises:
        ValueError: If there is no whole checkpoint, or no average of that name.
    """
    return _weights(latest_checkpoint(path), ema)


def objective_weights(checkpoint: Path, ema: bool | str = True) -> dict[str, "Tensor"]:
    """Return a whole checkpoint's weights of what the objective brought to training, by their names in it."""
    return {
        name.removeprefix(_OBJECTIVE): weight for name, weight in _all_weights(checkpoint, ema, is_of_objective).items()
    }


def is_of_objective(name: str) -> bool:
    """Tell whether a weight of a checkpoint belongs to the objective, not to the model."""
    return name.startswith(_OBJECTIVE)


def _weights(checkpoint: Path, ema: bool | str) -> dict[str, "Tensor"]:
    return _all_weights(checkpoint, ema, lambda name: not is_of_objective(name))


def _all_weights(checkpoint: Path, ema: bool | str, is_wanted: Callable[[str], bool]) -> dict[str, "Tensor"]:
    from vdm.checkpoints.snapshot import SavedCheckpoint  # imports torch, which a resumed run's folder is found without

    saved = SavedCheckpoint(checkpoint)
    averages = saved.average(ema) if isinstance(ema, str) else saved.ema
    averaged = averages.shapes if ema else {}
    names = filter(is_wanted, saved.weights.shapes)
    return {name: (averages if name in averaged else saved.weights).whole(name) for name in names}


def prune(run: Path, keep: Callable[[Sequence[int]], set[int]]) -> None:
    """Remove a run's checkpoints but for some, and what interrupted saving left behind.

    What can't be removed takes space, which is no reason to end training: a warning says so once.

    Args:
        run: Folder of the run.
        keep: Which of the numbers of steps, in ascending order, to keep.
    """
    clear_interrupted(run / CHECKPOINTS_NAME)
    by_folder = {folder: step_of(folder) for folder in checkpoints_of(run)}
    kept = keep(sorted(set(by_folder.values())))
    for folder, step in by_folder.items():
        if step not in kept:
            _remove(folder)


def clear_interrupted(folder: Path) -> None:
    """Remove what interrupted saving left behind among a run's checkpoints or snapshots, or warn as ``prune`` does."""
    for partial in folder.glob(".*.partial"):
        _remove(partial)


def _remove(folder: Path) -> None:
    try:
        remove_folder(folder)
    except OSError as error:
        _warn_once(f"{error.filename or folder}: can't be removed: {error.strerror or error}; remove it by hand")


@cache
def _warn_once(message: str) -> None:
    """Warn, but not again after each checkpoint."""
    _log.warning("%s", message)


def set_aside_later(run: Path, checkpoint: Path) -> None:
    """Move a run's checkpoints after one of them away, since the run goes on from that one: the latest counts."""
    later = [path for path in checkpoints_of(run) if step_of(path) > step_of(checkpoint)]
    if not later:
        return
    folder = run / CHECKPOINTS_NAME / f"abandoned-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder.mkdir()
    for path in reversed(later):  # cut off in the middle, the latest is still one of those that were left
        path.rename(folder / path.name)
    _log.warning("The run goes on from %s; its %d later checkpoints are in %s", checkpoint, len(later), folder)


def step_of(checkpoint: Path) -> int:
    """Return the number of optimizer steps after which a checkpoint was saved."""
    return int(checkpoint.name.removesuffix(REPLACED_SUFFIX).removeprefix("step="))


def checkpoints_of(run: Path) -> list[Path]:
    """Return a run's checkpoints in order of steps; a former version comes before the one that replaces it."""
    return _by_step(run / CHECKPOINTS_NAME)


def ema_snapshots_of(run: Path) -> list[Path]:
    """Return a run's snapshots of power-function averages in order of steps."""
    return _by_step(run / EMA_SNAPSHOTS_NAME)


def _by_step(folder: Path) -> list[Path]:
    pattern = re.compile(rf"step=\d+{REPLACED_SUFFIX}?")
    found = [path for path in folder.glob("step=*") if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: (step_of(path), not path.name.endswith(REPLACED_SUFFIX)))


def _versions() -> dict[str, Any]:
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_version(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
