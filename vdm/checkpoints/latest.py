"""The latest whole checkpoint of a run."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from vdm.checkpoints.frozen import verify_checkpoint
from vdm.checkpoints.layout import CHECKPOINTS_NAME, CONFIG_NAME, checkpoints_of, run_folder, without_link

_log = logging.getLogger(__name__)


def latest_checkpoint(path: Path) -> Path:
    """Return a run's latest whole checkpoint, or ``path`` itself if it is a whole checkpoint.

    Damaged checkpoints of a run are skipped with a warning.

    Raises:
        ValueError: If there is no whole checkpoint, or ``path`` is a damaged one.
    """
    return first_whole(checkpoints_to_try(path), verify_checkpoint)


def checkpoints_to_try(path: Path) -> list[Path]:
    """Return a run's checkpoints, latest first, or ``path`` itself if it is a checkpoint.

    Raises:
        ValueError: If there are none.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    if (path / CONFIG_NAME).is_file():
        path = run_folder(path)
    elif not (path / CHECKPOINTS_NAME).is_dir():
        return [without_link(path)]
    found = checkpoints_of(path)[::-1]
    if not found:
        raise ValueError(
            f"{path}: there is no checkpoint: the run ended before its first one; its command with hydra.run.dir={path}"
            " begins it again"
        )
    return found


def first_whole(folders: Sequence[Path], verify: Callable[[Path], None]) -> Path:
    """Return the first folder that ``verify`` accepts; those before it are skipped with a warning.

    Raises:
        ValueError: If none is whole; for a single folder with the reason.
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
