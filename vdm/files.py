"""Atomic writing of files: a reader sees a complete file or none."""

import errno
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vdm.json_values import spelled

MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Exceptions of code that reads JSON of unexpected form, with huge numbers or deep nesting among it."""


_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
"""Errors of ``rename`` for a path that exists already."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of ``link`` on a file system without hard links."""
_NOT_SHOWN = re.compile("[\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Characters that control a terminal, change the direction of writing or can't be encoded."""


def temporary_beside(path: Path) -> Path:
    """Return a temporary path beside ``path``, unique to this process, to be renamed to ``path``."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` when the block ends: a reader sees the old or the new file, never a part.

    After an error in the block the old file stays.

    Args:
        path: The file; its folder must exist.
        durable: Whether to flush to the disk, so that this also holds after a power failure.
    """
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        flush(path.parent)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which is renamed to ``path`` when the block ends.

    After an error it is removed. Parent folders of ``path`` are made.

    Raises:
        ValueError: In one line, if it can't be made, or ``path`` exists when the block ends.
        OSError: What the block raises; it names ``path`` if a library left out the file.
    """
    partial = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
    except OSError as error:
        raise ValueError(f"{path}: can't be made: {error.filename}: {error.strerror}") from None
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError as error:
            reason = "exists already" if error.errno in _IN_THE_WAY else f"can't be made: {error.strerror}"
            raise ValueError(f"{path}: {reason}") from None
    except BaseException as error:
        with suppress(OSError):
            _remove(partial)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:  # as libraries write
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def create_file(path: Path, text: str, durable: bool = False) -> bool:
    """Create a complete file atomically; of several processes that try, exactly one succeeds.

    Args:
        path: The file; its folder must exist.
        text: Its content.
        durable: Whether to flush to the disk.

    Returns:
        Whether this process created it; False if the file exists.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        is_created = _link(temporary, path, text)
    finally:
        temporary.unlink(missing_ok=True)
    if is_created and durable:
        flush(path.parent)
    return is_created


def _link(temporary: Path, target: Path, text: str) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # NFS sends a request again whose answer was lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with target.open("x", encoding="utf-8") as file:  # empty for a moment, as a damaged one would be
                file.write(text)
        except FileExistsError:
            return False
    return True


def _remove(path: Path) -> None:
    """Remove a file or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: object, indent: int | None = None, durable: bool = True) -> None:
    """Write a JSON file atomically; see ``replacing``.

    Text stays readable; control characters and the like are escaped. Numbers that are not finite become texts.
    """
    with replacing(path, durable) as file:
        text = json.dumps(spelled(content), indent=indent, ensure_ascii=False)
        file.write(_NOT_SHOWN.sub(lambda found: f"\\u{ord(found.group()):04x}", text).encode())


def write_file(path: Path, text: str) -> None:
    """Write a text file atomically, and make its parent folders; see ``replacing``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())
