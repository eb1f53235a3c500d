"""A folder of bounded size that keeps what was read of remote files, shared by all processes of a machine."""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

DIGEST_BYTES = 16


class DiskCache:
    """Keeps the values used last, one in a file; a value that was damaged on the disk counts as absent.

    Each process looks at the folder's size when it has written a twentieth of what the folder may hold.

    Args:
        path: The folder; it is made when something is kept.
        max_gib: Size to which the folder may grow, in GiB.
    """

    def __init__(self, path: Path, max_gib: float) -> None:
        if max_gib <= 0:
            raise ValueError(f"cache_gib={max_gib}: must be above 0")
        self._path = path
        self._max_bytes = int(max_gib * 2**30)
        self._unseen_bytes = self._max_bytes  # the first value is reason to look: the folder may be full already

    def get(self, key: str) -> bytes | None:
        """Return the value of ``key``, or None."""
        file = self._file(key)
        try:
            content = file.read_bytes()
            os.utime(file)
        except OSError:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        return data if blake2b(data, digest_size=DIGEST_BYTES).digest() == digest else None

    def put(self, key: str, data: bytes) -> None:
        """Keep a value; a disk that is full or read-only is no reason to stop."""
        file = self._file(key)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(blake2b(data, digest_size=DIGEST_BYTES).digest() + data)
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
        self._unseen_bytes += len(data)
        if self._unseen_bytes > self._max_bytes / 20:
            self._unseen_bytes = 0
            self._make_room()

    def drop(self, key: str) -> None:
        """Keep the value of ``key`` no longer."""
        with suppress(OSError):
            self._file(key).unlink()

    def _file(self, key: str) -> Path:
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return self._path / name[:2] / name

    def _make_room(self) -> None:
        """Delete what was used longest ago; other processes may do the same at the same time."""
        found: list[tuple[float, int, str]] = []
        for folder in self._path.glob("??"):
            with suppress(OSError), os.scandir(folder) as entries:
                found += [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in entries]
        excess = sum(size for _, size, _ in found) - self._max_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            with suppress(OSError):
                Path(path).unlink()
            excess -= size
