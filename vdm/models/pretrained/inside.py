"""Copying from a downloaded folder no more than what lies in it, for what is copied is given away."""

import os
import shutil
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """Refuse what is no regular file, such as a FIFO or a device, from which reading may never end.

    Raises:
        ValueError: In one line.
        OSError: If there is none.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: not a regular file")


def check_inside(path: Path, folder: Path) -> Path:
    """Return where a file of a folder is, behind all links.

    Raises:
        ValueError: In one line, if a link leads out of the folder, or out of the hub's cache of one model that it is
            part of; or if what is there is no regular file.
    """
    try:
        found = path.resolve(strict=True)
        check_regular(found)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    except ValueError:
        raise ValueError(f"{path}: not a regular file") from None
    if not found.is_relative_to(_bounds(folder.resolve())):
        raise ValueError(f"{path}: a link that leads out of {folder}, to {found}; copy the file there if it is meant")
    return found


def _bounds(folder: Path) -> Path:
    """Return the folder, or that of a model in the hub's cache: models--OWNER--NAME/snapshots/COMMIT links to blobs."""
    model = folder.parent.parent
    is_snapshot = folder.parent.name == "snapshots" and model.name.startswith("models--")
    return model if is_snapshot and (model / "blobs").is_dir() else folder


def copy_inside(path: Path, target: Path, folder: Path, max_bytes: int | None = None) -> None:
    """Copy a file of a folder.

    Args:
        path: The file, which may be a link.
        target: Where to.
        folder: See ``check_inside``.
        max_bytes: Size from which on the file is refused.

    Raises:
        ValueError: In one line, as ``check_inside``, or if the file is too large.
    """
    found = check_inside(path, folder)
    # Neither followed nor waited for, should it have changed since.
    with os.fdopen(os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise ValueError(f"{path}: {size:,} bytes, more than the {max_bytes:,} that a file of its kind may have")
        with target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 24)
