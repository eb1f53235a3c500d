"""Copying files of a downloaded folder, refusing links that lead out of it: copies are meant for others."""

import os
import shutil
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """Refuse a path that is not a regular file, such as a FIFO or a device, on which reading may never end.

    Raises:
        ValueError: One line, if it is not a regular file.
        OSError: If there is no such file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: not a regular file")


def check_inside(path: Path, folder: Path) -> Path:
    """Return the path of a file of a folder with all links resolved.

    Raises:
        ValueError: One line, if it is not a regular file, or if a link leads out of the folder. For a folder in the
            hub's cache, links may lead anywhere in the cache of the same model.
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
    """Return the folder, or the hub's cache of a model: models--OWNER--NAME/snapshots/COMMIT has links to blobs."""
    model = folder.parent.parent
    is_snapshot = folder.parent.name == "snapshots" and model.name.startswith("models--")
    return model if is_snapshot and (model / "blobs").is_dir() else folder


def copy_inside(path: Path, target: Path, folder: Path, max_bytes: int | None = None) -> None:
    """Copy a file of a folder.

    Args:
        path: The file, which may be a link.
        target: Path of the copy.
        folder: See ``check_inside``.
        max_bytes: Largest size allowed; None for any.

    Raises:
        ValueError: One line, as in ``check_inside``, or if the file is too large.
    """
    found = check_inside(path, folder)
    # If the file was replaced since the check: do not follow a link, and do not wait for a FIFO.
    with os.fdopen(os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise ValueError(f"{path}: {size:,} bytes, more than the {max_bytes:,} that a file of its kind may have")
        with target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 24)
