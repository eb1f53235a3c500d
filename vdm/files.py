"""Files that are there whole or not at all."""

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

MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of reading JSON that has another form than is expected; huge numbers and deep nesting among it."""


_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
"""What ``rename`` says of a path that something else has taken."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What ``link`` says where a file system has no hard links."""
_NOT_SHOWN = re.compile("[\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Characters that steer a terminal, turn the direction of writing or can't be encoded."""


def temporary_beside(path: Path) -> Path:
    """Return where to write a file that is to be renamed to ``path``; no other process uses that name."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that becomes ``path`` when the block ends: a reader sees the old or the new one, never a part.

    After an error in the block the old one stays.

    Args:
        path: The file; its folder must exist.
        durable: Whether to wait until the disk has it, so that this holds after a power failure too.
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
    """Yield a path at which to make a file or folder; it becomes ``path`` when the block ends.

    After an error, nothing is left of it. Folders that lead to ``path`` are made.

    Raises:
        ValueError: In one line, if nothing can be made there, or something has been made there in the meantime.
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
    """Create a file that is there whole at once; of any number of processes that try, one does.

    Args:
        path: The file; its folder must exist.
        text: Its content.
        durable: Whether to wait until the disk has it.

    Returns:
        Whether it was created; not if there is a file already.
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
    """Remove a file, or a folder with all that is in it, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: object, indent: int | None = None, durable: bool = True) -> None:
    """Write a JSON file whole or not at all; see ``replacing``.

    It is text that people can read, but for characters that would do more than be seen, which JSON spells.
    """
    with replacing(path, durable) as file:
        text = json.dumps(content, indent=indent, ensure_ascii=False)
        file.write(_NOT_SHOWN.sub(lambda found: f"\\u{ord(found.group()):04x}", text).encode())


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and the folders that lead to it; see ``replacing``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())
