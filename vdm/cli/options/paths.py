"""Early checks of files and folders that options name: cheap, and before heavy imports."""

import os
import tempfile
from pathlib import Path

from vdm.checkpoints.latest import checkpoints_to_try
from vdm.checkpoints.layout import run_folder
from vdm.config import ConfigError
from vdm.data.shard_lists import listed_sets
from vdm.found_instead import has_index


def check_checkpoint(path: Path, key: str | None = None) -> None:
    """Refuse a path that is neither a run's folder nor one of its checkpoints. Damage is found when it is read.

    Raises:
        ConfigError: In one line, which begins with ``key`` unless that is None.
    """
    try:
        run_folder(path)
        checkpoints_to_try(path)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None


def check_file(path: Path, key: str) -> None:
    """Refuse a file that is missing, unreadable or a folder.

    Raises:
        ConfigError: In one line that begins with ``key``.
    """
    if path.is_dir():
        raise ConfigError(f"{key}={path}: is a folder; give a file")
    if not path.exists():
        raise ConfigError(f"{key}={path}: no such file")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{key}={path}: can't be read: permission denied")


def check_folder(path: Path, key: str, of: str) -> None:
    """Refuse a missing folder; ``of`` names its content, as in ``of tars``.

    Raises:
        ConfigError: In one line that begins with ``key``.
    """
    if not path.is_dir():
        kind = "is a file" if path.exists() else "no such folder"
        raise ConfigError(f"{key}={path}: {kind}; give a folder {of}")


def check_shards(path: str | Path, key: str | None = None) -> None:
    """Refuse a path, or one in a list of sets, that is not a folder of shards. Damage is found when it is opened.

    Raises:
        ConfigError: In one line, which begins with ``key`` unless that is None.
    """
    try:
        for one in listed_sets(str(path)):
            if "://" not in one.path and not has_index(Path(one.path)):
                from vdm.data.index import read_index  # its error says what the path is

                read_index(one.path)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None


def is_missing_folder(path: object) -> bool:
    """Tell whether a path, or one in a list of sets, is that of a missing folder; URLs are not checked.

    Raises:
        ConfigError: If a list of sets is malformed; the message calls it ``data.path``.
    """
    if not isinstance(path, str | Path):
        return False
    try:
        return any("://" not in one.path and not Path(one.path).is_dir() for one in listed_sets(str(path)))
    except ValueError as error:
        raise ConfigError(f"data.path: {error}") from None


def check_new(path: Path, key: str) -> None:
    """Refuse an output that exists, except an empty folder, or that can't be created.

    Raises:
        ConfigError: In one line that begins with ``key``.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{key}={path}: exists already")
    check_writable(path, key)


def check_writable(path: Path, key: str) -> None:
    """Refuse an output folder that can't be written to; nothing is left behind.

    Raises:
        ConfigError: In one line that begins with ``key``.
    """
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={path}: can't be written to: {error.strerror}") from None
