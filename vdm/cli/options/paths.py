"""Early answers about files and folders that options name: cheap, and before anything heavy is imported."""

import os
import tempfile
from pathlib import Path

from vdm.checkpoints.latest import checkpoints_to_try
from vdm.checkpoints.layout import run_folder
from vdm.config import ConfigError
from vdm.data.shard_lists import listed_sets
from vdm.found_instead import has_index


def check_checkpoint(path: Path, key: str | None = None) -> None:
    """Refuse what is no run's folder and no checkpoint of one; whether it is whole is found when it is read.

    Raises:
        ConfigError: In one line, which begins with ``key`` if it is given.
    """
    try:
        run_folder(path)
        checkpoints_to_try(path)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None


def check_file(path: Path, key: str) -> None:
    """Refuse a file that is not there, or is a folder."""
    if path.is_dir():
        raise ConfigError(f"{key}={path}: is a folder; give a file")
    if not path.exists():
        raise ConfigError(f"{key}={path}: no such file")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{key}={path}: can't be read: permission denied")


def check_folder(path: Path, key: str, of: str) -> None:
    """Refuse a folder that is not there; ``of`` says what should be in it, as in ``of tars``."""
    if not path.is_dir():
        kind = "is a file" if path.exists() else "no such folder"
        raise ConfigError(f"{key}={path}: {kind}; give a folder {of}")


def check_shards(path: str | Path, key: str | None = None) -> None:
    """Refuse a folder, or one of a list, that is no set of shards; faults of a set are found when it is opened."""
    try:
        for one in listed_sets(str(path)):
            if "://" not in one.path and not has_index(Path(one.path)):
                from vdm.data.index import read_index  # has the words for it

                read_index(one.path)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None


def is_missing_folder(path: object) -> bool:
    """Tell whether this is a path or a list with a folder of this machine, rather than a URL, that is not there."""
    if not isinstance(path, str | Path):
        return False
    try:
        return any("://" not in one.path and not Path(one.path).is_dir() for one in listed_sets(str(path)))
    except ValueError as error:
        raise ConfigError(f"data.path: {error}") from None


def check_new(path: Path, key: str) -> None:
    """Refuse an output that exists already, but for an empty folder, or can't be made."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{key}={path}: exists already")
    check_writable(path, key)


def check_writable(path: Path, key: str) -> None:
    """Refuse an output folder into which nothing can be written; nothing is left behind."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={path}: can't be written to: {error.strerror}") from None
