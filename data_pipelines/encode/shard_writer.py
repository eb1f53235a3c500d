"""Writing a WebDataset tar so that the place and checksum of every member are known."""

import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import xxhash
from webdataset.writer import TarWriter

from vdm.data.shards import Member, SampleEntry, Shape, ShardEntry, checksum, shard_of
from vdm.data.sidecars import write_samples
from vdm.files import temporary_beside


class _DigestedFile:
    """Writes to a file and digests what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = xxhash.xxh3_128()
        self.num_bytes = 0

    def write(self, data: bytes) -> int:
        """See ``io.RawIOBase.write``."""
        self.digest.update(data)
        self.num_bytes += len(data)
        return self._file.write(data)


class ShardWriter:
    """Writes one shard and, on leaving its ``with`` block, its sidecar; after an error neither exists.

    The same samples give the same bytes: members have no time and no owner.

    Args:
        path: The tar to write; its name ends in ``.tar``.
        durable: Whether to wait until the disk has everything, so that it outlasts a power failure.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path, self.durable = path, durable
        self.samples: list[SampleEntry] = []
        self.entry: ShardEntry | None = None
        """The index entry of the shard, once it is complete."""
        self._temporary = temporary_beside(path)
        self._file = self._temporary.open("wb")
        self._digested = _DigestedFile(self._file)
        self._tar = TarWriter(cast(BinaryIO, self._digested), user="", group="", encoder=False, mtime=0)

    def add(self, key: str, shape: Shape, members: Mapping[str, bytes]) -> None:
        """Append a sample.

        Args:
            key: Its name: unique in the set, without dots or slashes.
            shape: Frames, rows and columns of its clip.
            members: Content by extension.
        """
        entries = {extension: self._add_file(key, extension, data) for extension, data in members.items()}
        self.samples.append(SampleEntry(key, shape, entries))

    def _add_file(self, key: str, extension: str, data: bytes) -> Member:
        tar: Any = self._tar.tarstream
        start = tar.offset + tarfile.BLOCKSIZE  # a USTAR header is one block
        self._tar.write({"__key__": key, extension: data})  # one by one: it would sort the members of a sample
        tar.members.clear()  # tarfile keeps an object for each
        return Member(start, len(data), checksum(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):
                self._tar.close()
            with suppress(OSError):
                self._file.close()
            self._temporary.unlink()
            return
        self._tar.close()
        if self.durable:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        write_samples(self.path.parent, self.path.name, self.samples, self.durable)
        digest = self._digested.digest.hexdigest()
        self.entry = shard_of(self.path.name, self._digested.num_bytes, digest, self.samples)
