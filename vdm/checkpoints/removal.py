"""Removal of checkpoints that are not kept, and of what interrupted saving left behind."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

from vdm.checkpoints.folder import remove_folder
from vdm.checkpoints.layout import CHECKPOINTS_NAME, checkpoints_of, step_of

_log = logging.getLogger(__name__)


def prune(run: Path, keep: Callable[[Sequence[int]], set[int]]) -> None:
    """Remove the checkpoints of a run that need not be kept, and the remains of interrupted saving.

    A folder that can't be removed only takes space, so training continues; a warning names it once.

    Args:
        run: Folder of the run.
        keep: Returns the steps to keep of all steps with a checkpoint, which come in ascending order.
    """
    clear_interrupted(run / CHECKPOINTS_NAME)
    by_folder = {folder: step_of(folder) for folder in checkpoints_of(run)}
    kept = keep(sorted(set(by_folder.values())))
    for folder, step in by_folder.items():
        if step not in kept:
            _remove(folder)


def clear_interrupted(folder: Path) -> None:
    """Remove the remains of interrupted saving among checkpoints or EMA snapshots, or warn as ``prune`` does."""
    for partial in folder.glob(".*.partial"):
        _remove(partial)


def set_aside_later(run: Path, checkpoint: Path) -> bool:
    """Move the checkpoints after a given one aside, since the run resumes from it and always uses the latest.

    Returns:
        Whether there were any.
    """
    later = [path for path in checkpoints_of(run) if step_of(path) > step_of(checkpoint)]
    if not later:
        return False
    folder = run / CHECKPOINTS_NAME / f"abandoned-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder.mkdir()
    for path in reversed(later):  # interrupted, this leaves the earlier ones: still a valid run
        path.rename(folder / path.name)
    _log.warning("The run goes on from %s; its %d later checkpoints are in %s", checkpoint, len(later), folder)
    return True


def _remove(folder: Path) -> None:
    try:
        remove_folder(folder)
    except OSError as error:
        _warn_once(f"{error.filename or folder}: can't be removed: {error.strerror or error}; remove it by hand")


@cache
def _warn_once(message: str) -> None:
    """Warn once, not after each checkpoint."""
    _log.warning("%s", message)
