"""Checked random access to the samples of a shard set."""

import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vdm.data.cache import BoundedCache
from vdm.data.quarantine import BadSampleError, Fault
from vdm.data.shards import DamagedSample, Member, SampleEntry, Shape, ShardEntry, read_member, read_samples

T = TypeVar("T")

CHECKSUM_BYTES = 16
MAX_OPEN_FILES = 128
MAX_LISTED_SAMPLES = 1 << 18
"""Samples whose offsets and checksums are kept in memory, some 200 bytes each."""
RETRY_DELAYS_SECONDS = (0.1, 1.0)
"""Pauses before each new attempt when the file system reports an error."""


@dataclass(frozen=True)
class RawSample:
    """The files of one sample, as they lie in the shard."""

    shard: str
    key: str
    offset: int
    """Byte of the shard at which the video begins."""
    shape: Shape
    video: bytes
    metadata: bytes

    def bad(self, reason: object) -> BadSampleError:
        """Return the error that says why this sample can't be used."""
        return BadSampleError(Fault(self.shard, self.key, self.offset, f"{self.shard}: {self.key}: {reason}"))


class SampleTable:
    """The sidecar of one shard in a tenth of the memory that its objects take."""

    def __init__(self, samples: Sequence[SampleEntry]) -> None:
        self._keys = [sample.key for sample in samples]
        self._shapes = array("q", (size for sample in samples for size in sample.shape))
        self._extensions = sorted({extension for sample in samples for extension in sample.members})
        absent = Member(offset=0, length=-1, checksum="00" * CHECKSUM_BYTES)
        members = [sample.members.get(extension, absent) for sample in samples for extension in self._extensions]
        self._offsets = array("q", (member.offset for member in members))
        self._lengths = array("q", (member.length for member in members))
        self._checksums = b"".join(bytes.fromhex(member.checksum) for member in members)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, sample: int) -> SampleEntry:
        t, h, w = self._shapes[3 * sample : 3 * sample + 3]
        return SampleEntry(self._keys[sample], (t, h, w), self._members(sample))

    def _members(self, sample: int) -> dict[str, Member]:
        rows = enumerate(self._extensions, start=sample * len(self._extensions))
        return {extension: self._member(row) for row, extension in rows if self._lengths[row] >= 0}

    def _member(self, row: int) -> Member:
        checksum = self._checksums[row * CHECKSUM_BYTES : (row + 1) * CHECKSUM_BYTES]
        return Member(self._offsets[row], self._lengths[row], checksum.hex())


class ShardReader:
    """Reads any sample of a split; opens only the shards that are asked for.

    Args:
        path: Folder of the shard set.
        shards: The split's entries in the index.
    """

    def __init__(self, path: Path, shards: Sequence[ShardEntry]) -> None:
        self._path = path
        self._shards = tuple(shards)
        self._tables: BoundedCache[int, SampleTable] = BoundedCache(MAX_LISTED_SAMPLES, size=len)
        self._descriptors: BoundedCache[int, int] = BoundedCache(MAX_OPEN_FILES, discard=os.close)

    def read(self, shard: int, sample: int) -> RawSample:
        """Read one sample and check its bytes against the index.

        Raises:
            BadSampleError: If they are not those recorded, or can't be read after some attempts.
        """
        name = self._shards[shard].name
        try:
            entry = self._retry(lambda: self._tables.get(shard, self._list)[sample])
        except (ValueError, OSError) as error:
            raise BadSampleError(Fault(name, key="", offset=-1, reason=str(error))) from error
        try:
            video, metadata = self._retry(lambda: self._read_members(shard, entry))
        except (DamagedSample, OSError) as error:
            raise BadSampleError(Fault(name, entry.key, _video_offset(entry), str(error))) from error
        return RawSample(name, entry.key, _video_offset(entry), entry.shape, video, metadata)

    def close(self) -> None:
        """Close all files; the next ``read`` opens them again."""
        self._descriptors.clear()

    def __del__(self) -> None:
        self.close()

    def _list(self, shard: int) -> SampleTable:
        return SampleTable(read_samples(self._path, self._shards[shard]))

    def _read_members(self, shard: int, entry: SampleEntry) -> tuple[bytes, bytes]:
        name = self._shards[shard].name
        with open(self._descriptors.get(shard, self._open), "rb", closefd=False) as file:
            return read_member(file, name, entry, "mp4"), read_member(file, name, entry, "json")

    def _open(self, shard: int) -> int:
        return os.open(self._path / self._shards[shard].name, os.O_RDONLY)

    def _retry(self, action: Callable[[], T]) -> T:
        """Return what ``action`` returns, however often a fault of the file system makes it start anew."""
        for delay_seconds in RETRY_DELAYS_SECONDS:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError:
                self.close()
                time.sleep(delay_seconds)
        return action()


def _video_offset(entry: SampleEntry) -> int:
    return entry.members["mp4"].offset if "mp4" in entry.members else -1
