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


def _remove(folder: Path) -> None:
    try:
        remove_folder(folder)
    except OSError as error:
        _warn_once(f"{error.filename or folder}: can't be removed: {error.strerror or error}; remove it by hand")


@cache
def _warn_once(message: str) -> None:
    """Warn, but not again after each checkpoint."""
    _log.warning("%s", message)
