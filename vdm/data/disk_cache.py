"""A cache of remote data in a local folder of bounded size, shared by all processes of a machine."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from vdm.regular_files import open_descriptor

DIGEST_BYTES = 16
MARKER = ".vdm-cache"
"""An empty folder that marks a cache; making it is atomic."""

_FOLDER = re.compile(r"[0-9a-f]{2}")
_FILE = re.compile(r"[0-9a-f]{32}(\.\d+\.tmp)?")
"""Names of complete and unfinished values of a cache."""


class _Kept(NamedTuple):
    """A file of the cache."""

    used: float
    """When it was used last."""
    num_bytes: int
    folder: str
    name: str


class DiskCache:
    """Keeps the values used last, one a file; a value that was damaged on the disk counts as absent.

    Each process checks the folder's size after it has written a twentieth of the limit. Only files with a cache's own
    names are deleted, in a folder that was empty when the cache was begun.

    Args:
        path: The folder; it is made for the first value.
        max_gib: Size to which the folder may grow, in GiB.

    Raises:
        ValueError: In one line, if the folder has other content.
    """

    def __init__(self, path: Path, max_gib: float) -> None:
        if max_gib <= 0:
            raise ValueError(f"cache_gib={max_gib}: must be above 0")
        self._path = path
        self._max_bytes = int(max_gib * 2**30)
        self._unseen_bytes = self._max_bytes  # the size is checked at the first value: the folder may be full already
        if path.is_dir() and not self._is_ours():
            raise ValueError(
                f"cache_path={path}: is not empty and no cache; name a folder that is empty or does not exist"
            )

    def get(self, key: str) -> bytes | None:
        """Return the value of ``key``, or None."""
        try:
            with os.fdopen(open_descriptor(self._file(key), follow_links=False), "rb") as file:
                content = file.read()
                os.utime(file.fileno())
        except OSError:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return data if blake2b(data, digest_size=DIGEST_BYTES).digest() == digest else None

    def put(self, key: str, data: bytes) -> None:
        """Store a value; errors of the disk are ignored, since a cache is optional."""
        with suppress(OSError):
            if not self._begin():
                return
            self._write(self._file(key), blake2b(data, digest_size=DIGEST_BYTES).digest() + data)
        self._unseen_bytes += len(data)
        if self._unseen_bytes > self._max_bytes / 20:
            self._unseen_bytes = 0
            self._make_room()

    def drop(self, key: str) -> None:
        """Delete the value of ``key``."""
        file = self._file(key)
        with suppress(OSError):
            _delete(str(file.parent), file.name)

    def _file(self, key: str) -> Path:
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return self._path / name[:2] / name

    def _is_ours(self) -> bool:
        """Whether the folder is a cache, or is empty and may become one."""
        return not any(self._path.iterdir()) or (self._path / MARKER).is_dir()

    def _begin(self) -> bool:
        """Make the folder if it is missing; return whether it is a cache."""
        self._path.mkdir(parents=True, exist_ok=True)
        if not self._is_ours():
            return False
        (self._path / MARKER).mkdir(exist_ok=True)
        return True

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            file.parent.mkdir(exist_ok=True)
            if file.parent.is_symlink():
                return
            with temporary.open("xb") as opened:
                opened.write(content)
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink()

    def _make_room(self) -> None:
        """Delete the values used longest ago; other processes may do so at the same time."""
        found = list(self._kept())
        excess = sum(one.num_bytes for one in found) - self._max_bytes
        for one in sorted(found):
            if excess <= 0:
                return
            with suppress(OSError):
                _delete(one.folder, one.name)
            excess -= one.num_bytes

    def _kept(self) -> Iterator[_Kept]:
        """Yield the files that the cache has written."""
        if not (self._path / MARKER).is_dir():
            return
        for folder in self._path.iterdir():
            if not _FOLDER.fullmatch(folder.name) or folder.is_symlink():
                continue
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    is_own = _FILE.fullmatch(entry.name) and entry.name.startswith(folder.name)
                    if is_own and stat.S_ISREG(status.st_mode):
                        yield _Kept(status.st_mtime, status.st_size, str(folder), entry.name)


def _delete(folder: str, name: str) -> None:
    """Delete a file of a folder; refuse a folder that has been exchanged for a link since it was listed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
