"""Storage of shard sets: local folders, and URLs of S3, Google Cloud Storage, HTTP and the Hugging Face hub.

Only the requested bytes of remote files are fetched. Credentials come only from the places where each service's own
client looks for them: environment, configuration files, roles of the machine.
"""

import errno
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem, sync

from vdm.data import retries
from vdm.data.cache import BoundedCache
from vdm.data.disk_cache import DiskCache
from vdm.regular_files import UnfitFileError, open_descriptor

T = TypeVar("T")

MAX_OPEN_FILES = 256
NUM_CONNECTIONS = 16
"""Concurrent requests of a process to remote storage."""
LISTING_TIMEOUT_SECONDS = 600.0
"""Time-out for listing a remote folder."""

_PACKAGES = {"s3": "'.[s3]'", "s3a": "'.[s3]'", "gs": "'.[gcs]'", "gcs": "'.[gcs]'", "hf": "'.[hub]'"}
"""Argument of ``pip install`` for each protocol."""


class Folder(Protocol):
    """A folder of files that are read in parts."""

    is_remote: bool
    """Whether every read is a round trip, so that concurrent reads are faster."""
    cache: DiskCache | None
    """Cache of data that passed their check."""

    def path_of(self, name: str) -> str:
        """Return the full path or URL of a file, for messages."""
        ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes | bytearray:
        """Return ``length`` bytes of a file from ``offset`` on, fewer if it ends earlier; None reads to the end.

        Raises:
            OSError: If they can't be read, after several attempts; ``FileNotFoundError`` at once.
        """
        ...

    def read_into(self, memory: memoryview, name: str, offset: int) -> int:
        """Fill ``memory`` with the bytes of a file from ``offset`` on; return their number. See ``read``."""
        ...

    def sizes(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the size of each existing file; None if the storage does not report it."""
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a file, in one attempt; None if the storage does not report it.

        Raises:
            OSError: If the storage does not answer; ``FileNotFoundError`` if the file does not exist.
        """
        ...

    def close(self) -> None:
        """Close files and connections; reading opens them again."""
        ...


def open_folder(path: str | Path, cache: DiskCache | None = None) -> Folder:
    """Return the folder at a path or URL; nothing is read yet.

    Args:
        path: The path or URL.
        cache: The ``cache`` of remote folders.

    Raises:
        ValueError: In one line, if the URL's protocol is unknown or needs a package that is not installed.
    """
    if "://" not in str(path):
        return LocalFolder(Path(path))
    return RemoteFolder(str(path), cache)


def read_whole(folder: Folder, name: str, max_bytes: int) -> bytes | bytearray:
    """Return the content of a file of at most ``max_bytes``.

    The size of a remote file is checked after reading, to save a round trip.

    Raises:
        UnfitFileError: If it is larger, or no regular file.
        OSError: If it can't be read.
    """
    num_bytes = 0 if folder.is_remote else folder.size(name) or 0
    data = b"" if num_bytes > max_bytes else folder.read(name)
    if max(num_bytes, len(data)) > max_bytes:
        raise UnfitFileError(errno.EFBIG, f"has more than the {max_bytes} bytes that such a file may have")
    return data


def folder_of(place: str | Path | Folder) -> Folder:
    """Return the folder at a path or URL, or ``place`` itself if it is a folder; see ``open_folder``."""
    return open_folder(place) if isinstance(place, str | Path) else place


class LocalFolder:
    """A folder of this machine or of a mounted file system."""

    is_remote = False
    cache: DiskCache | None = None
    retry_delays_seconds: tuple[float, ...] = (0.1, 1.0)
    """Pauses before a failed request is repeated; see ``vdm.data.retries``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptors: BoundedCache[str, int] = BoundedCache(MAX_OPEN_FILES, discard=os.close)

    def path_of(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.path / name)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytearray:
        """Return some bytes of a file; see ``Folder``."""
        rest = max(0, self._retried(lambda: self._open_size(name)) - offset)
        data = bytearray(rest if length is None else min(length, rest))
        num_read = self.read_into(memoryview(data), name, offset)
        return data if num_read == len(data) else data[:num_read]

    def read_into(self, memory: memoryview, name: str, offset: int) -> int:
        """Fill memory with some bytes of a file; see ``Folder``."""
        return self._retried(lambda: self._read_into(memory, name, offset))

    def _read_into(self, memory: memoryview, name: str, offset: int) -> int:
        descriptor, num_read = self._descriptors.get(name, self._open), 0
        while num_read < len(memory) and (count := os.preadv(descriptor, [memory[num_read:]], offset + num_read)):
            num_read += count
        return num_read

    def _open_size(self, name: str) -> int:
        return os.fstat(self._descriptors.get(name, self._open)).st_size

    def _retried(self, attempt: Callable[[], T]) -> T:
        return retries.request(attempt, self.retry_delays_seconds, self.close)

    def sizes(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the size of each existing file."""
        wanted = set(names)
        with os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name in wanted and entry.is_file()}

    def size(self, name: str) -> int:
        """Return the size of a file; see ``Folder``."""
        return (self.path / name).stat().st_size

    def close(self) -> None:
        """Close all files."""
        self._descriptors.clear()

    def __del__(self) -> None:
        self.close()

    def _open(self, name: str) -> int:
        return open_descriptor(self.path / name)


class RemoteFolder:
    """A folder behind a URL that fsspec knows.

    It is pickled as its URL: clients of remote storage do not survive a fork.
    """

    is_remote = True
    retry_delays_seconds: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
    """Pauses before a failed request is repeated; see ``vdm.data.retries``."""

    timeout_seconds: float = 60.0
    """Time-out of a request."""

    def __init__(self, url: str, cache: DiskCache | None = None) -> None:
        self.url = url.rstrip("/")
        self.cache = cache
        _ = self._file_system  # so that mistakes in the URL raise here

    @functools.cached_property
    def _file_system(self) -> Any:
        protocol = self.url.split("://")[0]
        try:
            file_system, _ = fsspec.core.url_to_fs(self.url, **_options(protocol))
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            advice = f"pip install {package}" if package else " ".join(str(error).split())
            raise ValueError(f"{self.url}: needs a package that is not installed; {advice}") from None
        except ValueError as error:
            raise ValueError(f"{self.url}: {' '.join(str(error).split())}") from None
        return file_system

    @property
    def _root(self) -> str:
        return self._file_system._strip_protocol(self.url).rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "cache": self.cache}

    def path_of(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.url}/{name}"

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return some bytes of a file; see ``Folder``. Several threads may read at once."""
        end = None if length is None else offset + length
        path = f"{self._root}/{name}"

        def attempt() -> bytes:
            if length == 0:
                return b""
            data = self._call("cat_file", path, start=offset if offset or end else None, end=end)
            if length is not None and len(data) > length:
                raise OSError(
                    f"{self.path_of(name)}: the server sends the whole file where {length} bytes are asked for"
                )
            return data

        return self._retried(attempt)

    def read_into(self, memory: memoryview, name: str, offset: int) -> int:
        """Fill memory with some bytes of a file; see ``Folder``. Several threads may do so at once."""
        data = self.read(name, offset, len(memory))
        memory[: len(data)] = data
        return len(data)

    def sizes(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return the size of each existing file, by one listing of the folder if the storage has listings."""
        if self.url.startswith(("http://", "https://")):
            with ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="sizes") as threads:
                sizes = threads.map(self._size_or_missing, names)
                return {name: size for name, size in zip(names, sizes, strict=True) if size != -1}
        wanted = set(names)

        def attempt() -> list[dict[str, Any]]:
            self._file_system.invalidate_cache()  # some clients cache listings in spite of their options
            return self._call("ls", self._root, detail=True, timeout=LISTING_TIMEOUT_SECONDS)

        found = {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in self._retried(attempt)}
        return {name: size for name, size in found.items() if name in wanted}

    def size(self, name: str) -> int | None:
        """Return the size of a file; see ``Folder``."""
        return self._call("info", f"{self._root}/{name}").get("size")

    def _size_or_missing(self, name: str) -> int | None:
        """Return the size of a file, None if the server does not report it, -1 if the file does not exist."""
        try:
            return self._retried(lambda: self.size(name))
        except FileNotFoundError:
            return -1

    def _retried(self, attempt: Callable[[], T]) -> T:
        return retries.request(attempt, self.retry_delays_seconds)

    def _call(self, method: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a method of the file system; every error becomes an ``OSError``, as on a disk."""
        file_system, timeout = self._file_system, timeout or self.timeout_seconds
        try:
            if isinstance(file_system, AsyncFileSystem):
                return sync(file_system.loop, getattr(file_system, f"_{method}"), *args, timeout=timeout, **kwargs)
            # Others open a file to read a part of it, and would read ahead.
            options = {"cache_type": "none"} if method == "cat_file" else {}
            return getattr(file_system, method)(*args, **kwargs, **options)
        except TimeoutError:
            raise TimeoutError(f"{self.url}: no answer within {timeout:g} s") from None
        except OSError:
            raise
        except Exception as error:  # clients have errors of their own for lost connections and the like
            raise OSError(f"{self.url}: {type(error).__name__}: {' '.join(str(error).split())}") from error

    def close(self) -> None:
        """Do nothing: the clients keep their connections."""


def _options(protocol: str) -> dict[str, Any]:
    """Return the options of the protocol's client."""
    # A cached listing would hide changes, and take a few hundred MB for a million files.
    return {"use_listings_cache": False} if protocol not in ("memory", "file", "local") else {}
