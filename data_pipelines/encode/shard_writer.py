"""Writing a WebDataset tar so that the place and checksum of every member are known."""

import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

from vdm.data.shards import Member, SampleEntry, Shape, ShardEntry, checksum, shard_of
from vdm.data.sidecars import write_samples
from vdm.files import temporary_beside


class ShardWriter:
    """Writes one shard and, on leaving its ``with`` block, its sidecar; after an error neither exists.

    The same samples give the same bytes: members carry no time and no owner.

    Args:
        path: The tar to write; its name ends in ``.tar``.
        durable: Whether to wait until the disk has everything, so that it outlasts a power failure.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path, self.durable = path, durable
        self.samples: list[SampleEntry] = []
        self.entry: ShardEntry | None = None
        """What the index says of the shard, once it is complete."""
        self._temporary = temporary_beside(path)
        self._file = self._temporary.open("wb")
        self._digest = xxhash.xxh3_128()

    def add(self, key: str, shape: Shape, members: Mapping[str, bytes]) -> None:
        """Append a sample.

        Args:
            key: Its name: unique in the set, without dots or slashes.
            shape: Frames, rows and columns of its clip.
            members: Content by extension.
        """
        entries = {extension: self._add_file(f"{key}.{extension}", data) for extension, data in members.items()}
        self.samples.append(SampleEntry(key, shape, entries))

    def _add_file(self, name: str, data: bytes) -> Member:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o444
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        member = Member(self._file.tell(), len(data), checksum(data))
        self._write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return member

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._file.close()
            self._temporary.unlink()
            return
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        num_bytes = self._file.tell()
        if self.durable:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        write_samples(self.path.parent, self.path.name, self.samples, self.durable)
        self.entry = shard_of(self.path.name, num_bytes, self._digest.hexdigest(), self.samples)
