"""Files that are written whole or not at all, and read with no trust in what is in them."""

import json
import os
import socket
import stat
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 64 << 20
"""Size up to which a file is read at once: more than any list of weights, vocabulary or model card has."""

MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of reading JSON that has another form than is expected; huge numbers and deep nesting among it."""


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


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: object, indent: int | None = None, durable: bool = True) -> None:
    """Write a JSON file whole or not at all; see ``replacing``."""
    with replacing(path, durable) as file:
        file.write(json.dumps(content, indent=indent, ensure_ascii=False).encode())


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and the folders that lead to it; see ``replacing``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


def read_bounded(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file that may be anybody's: of a regular one, since others may never end.

    Raises:
        ValueError: In one line, if there is none, it can't be read, or it is too large.
    """
    try:
        check_regular(path, max_bytes)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from None


def check_regular(path: Path, max_bytes: int | None = None) -> None:
    """Refuse what is no regular file, such as a FIFO or a device, from which reading may never end.

    Raises:
        ValueError: In one line; also where the file is larger than ``max_bytes``.
        OSError: If there is none.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: a folder, where a file belongs" if path.is_dir() else f"{path}: not a regular file")
    if max_bytes is not None and found.st_size > max_bytes:
        raise ValueError(f"{path}: {found.st_size} bytes are more than a file of this kind may have ({max_bytes})")


def read_json(path: Path, kind: Any, max_bytes: int = MAX_BYTES) -> Any:
    """Return what a JSON file holds, once it is known to have the shape of ``kind``.

    Args:
        path: The file.
        kind: Built of ``dict``, ``list`` and ``TypedDict``; what a ``TypedDict`` does not list may be there too.
        max_bytes: See ``read_bounded``.

    Raises:
        ValueError: In one line that names the file, and the key if one is wrong.
    """
    content = read_bounded(path, max_bytes)
    try:
        found: Any = json.loads(content.decode())
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: can't be read as JSON: {' '.join(str(error).split())}") from None
    return checked_shape(found, kind, path)


def checked_shape(value: Any, kind: Any, source: object) -> Any:
    """Return ``value``, once it is known to have the shape of ``kind``; see ``read_json``.

    Raises:
        ValueError: In one line that begins with the source and the key.
    """
    from pydantic import TypeAdapter, ValidationError  # takes longer to import than most who import this module need

    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, detail["loc"]))
        is_missing = detail["type"] == "missing"
        reason = "is missing" if is_missing else f"{_shown(detail['input'])}: {detail['msg']}"
        raise ValueError(f"{source}: {key} {reason}" if key else f"{source}: {reason}") from None
    return value


def _shown(value: object) -> str:
    return textwrap.shorten(repr(value), 60, placeholder=" ...")
