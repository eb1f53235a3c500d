"""Finds the runs below a folder, whatever else lies there."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from vdm.checkpoints.history import HISTORY_NAME
from vdm.checkpoints.layout import CHECKPOINTS_NAME, CONFIG_NAME
from vdm.checkpoints.run_record import VERSIONS_NAME
from vdm.text import printable
from vdm.training.run_lock import LOCKS_NAME

_OF_RUNS = frozenset({CHECKPOINTS_NAME, VERSIONS_NAME, HISTORY_NAME, LOCKS_NAME})
"""Names in a run's folder, of which others that have a configuration have none."""

_log = logging.getLogger(__name__)


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the runs in a folder and below it, each once; nothing inside of a run is searched.

    Links are followed only to a run itself, so that circles of links end. Folders whose name begins with a dot are left
    out, as those of rehearsals. What can't be read is named in a warning.
    """
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        present = waiting.pop()
        try:
            with os.scandir(present) as entries:
                found = list(entries)
        except OSError as error:
            _log.warning("%s: can't be read: %s", printable(present), error.strerror or error)
            continue
        if _is_run({entry.name for entry in found}):
            real = os.path.realpath(present)
            if real not in seen:
                seen.add(real)
                yield present
            continue
        folders = [entry for entry in found if _is_folder(entry) and not entry.name.startswith(".")]
        waiting += [Path(entry) for entry in folders if not entry.is_symlink() or _is_run_at(Path(entry))]


def _is_run(names: set[str]) -> bool:
    return CONFIG_NAME in names and not names.isdisjoint(_OF_RUNS)


def _is_run_at(path: Path) -> bool:
    try:
        return _is_run({entry.name for entry in path.iterdir()})
    except OSError:
        return False


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, without following links; what can't be read counts for nothing."""
    total, waiting = 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
