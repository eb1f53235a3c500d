"""Safe opening of untrusted files: only regular files of bounded size are read.

Reading a named pipe would block, and a device such as ``/dev/zero`` has no end.
"""

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


class UnfitFileError(OSError):
    """A path that is no regular file, or a file above its size limit; repeating the call does not help."""


def open_descriptor(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o666, follow_links: bool = True) -> int:
    """Open a regular file, and return its descriptor; see ``os.open``.

    The call never blocks, and does not open devices.

    Args:
        path: The file.
        flags: As for ``os.open``.
        mode: Permissions of a new file.
        follow_links: Whether ``path`` may be a symbolic link.

    Raises:
        UnfitFileError: If the path is something else.
        OSError: If it can't be opened.
    """
    try:
        _check_kind(Path(path).stat(follow_symlinks=follow_links), path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, mode)
    try:
        _check_kind(os.fstat(descriptor), path)  # it may have been exchanged since
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading; see ``open_descriptor``."""
    return open(path, "rb", opener=lambda name, _: open_descriptor(name))


def read_limited(path: str | Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        UnfitFileError: If it is something else, or has more than ``max_bytes``.
        OSError: If it can't be read.
    """
    with open_regular(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        data = b"" if num_bytes > max_bytes else file.read(max_bytes + 1)  # it may grow meanwhile
    if max(num_bytes, len(data)) > max_bytes:
        raise UnfitFileError(errno.EFBIG, f"has more than the {max_bytes} bytes that such a file may have", str(path))
    return data


def _check_kind(status: os.stat_result, path: str | Path) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UnfitFileError(errno.EINVAL, f"is {_KINDS.get(kind, 'something else')}, not a file", str(path))


class FilePart(io.RawIOBase):
    """A part of an open file as a file object, not held in memory.

    Args:
        file: The file; its position changes.
        start: First byte of the part.
        length: Bytes of the part; fewer if the file ends earlier.
    """

    def __init__(self, file: io.BufferedIOBase, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length
        self._position = 0

    @staticmethod
    def open(file: io.BufferedIOBase, start: int, length: int) -> io.BufferedReader:
        """Return a part of a file, read through a buffer."""
        return io.BufferedReader(FilePart(file, start, length))

    def readable(self) -> bool:
        """See ``io.IOBase``."""
        return True

    def seekable(self) -> bool:
        """See ``io.IOBase``."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See ``io.IOBase``."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See ``io.RawIOBase``."""
        wanted = max(0, min(len(buffer), self._length - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
