"""Checked random access to the samples of a shard set."""

from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from typing import NamedTuple, TypeVar

from vdm.data import retries
from vdm.data.cache import BoundedCache
from vdm.data.index import INDEX_NAME
from vdm.data.member_checks import DamagedSample, check_member, too_long
from vdm.data.memory import ReusedMemory
from vdm.data.quarantine import BadSampleError, Fault
from vdm.data.sample_table import SampleTable
from vdm.data.shard_table import ShardTable
from vdm.data.shards import LATENTS, PICTURES, TEXT, VIDEO, Kind, SampleEntry, ShardEntry, max_bytes_of
from vdm.data.sidecars import MAX_SIDECAR_BYTES, parse_samples, sidecar_name
from vdm.data.spans import Span, spans_of
from vdm.data.storage import NUM_CONNECTIONS, Folder, read_whole
from vdm.regular_files import UnfitFileError

__all__ = ["LATENTS", "PICTURES", "TEXT", "VIDEO", "RawSample", "Request", "ShardReader", "pixels_of"]

T = TypeVar("T")

MAX_LISTED_BYTES = 1 << 29
"""Memory for the offsets and checksums of samples, some 30 bytes a file.

The order goes round ``num_streams`` shards for each shape of clips, and where their lists don't fit, each sample costs
the parsing of a whole list: room for 64 shards of 10,000 samples of three files in seven shapes.
"""
LARGE_BYTES = 1 << 24
"""The size of the shard is checked before more memory than this is allocated."""
MAX_ENTRIES = 1 << 12
"""Maximum number of shards whose index entries are kept as objects."""


def pixels_of(extensions: Container[str]) -> str:
    """Return the extension of the member to decode: the video, or else a picture."""
    return next((extension for extension in (VIDEO, *PICTURES) if extension in extensions), VIDEO)


class RawSample(NamedTuple):
    """The files of one sample, not yet decoded."""

    shard: str
    key: str
    offset: int
    """First byte of the files in the shard."""
    stored: Kind
    """Kind of the stored clip, with its frame rate if that is known."""
    members: Mapping[str, memoryview]
    """Content of each file, by extension."""

    def bad(self, reason: object) -> BadSampleError:
        """Return the error that says why this sample can't be used."""
        return BadSampleError(Fault(self.shard, self.key, self.offset, f"{self.shard}: {self.key}: {reason}"))


class Request(NamedTuple):
    """A sample to be read."""

    shard: int
    sample: int
    """Number among the shard's samples of one of the kinds ``stored``."""
    stored: frozenset[Kind]
    extensions: frozenset[str]
    """Files to read; those that the sample lacks are left out."""


class _Listed(NamedTuple):
    """A sample of the sidecar, and the spans to read for it with their memory."""

    shard: ShardEntry
    entry: SampleEntry
    spans: Sequence[tuple[Span, memoryview]]


class ShardReader:
    """Random access to the samples of a split; only requested shards are opened.

    Args:
        folder: Folder of the shard set.
        shards: The split's shards in the index.
        fps: Frames per second of the set's clips, where their kinds don't say it.
    """

    patience_seconds: float = 600.0
    """How long ``read`` waits for storage that fails."""

    def __init__(self, folder: Folder, shards: ShardTable, fps: float | None = None) -> None:
        self._folder = folder
        self._shards = shards
        self._fps = fps
        self._entries: BoundedCache[int, ShardEntry] = BoundedCache(MAX_ENTRIES)
        self._tables: BoundedCache[int, SampleTable] = BoundedCache(MAX_LISTED_BYTES, size=attrgetter("num_bytes"))
        self._missing: set[str] = set()
        """Files that a listing of their folder has shown to be missing."""
        self._memory = ReusedMemory()
        self._threads: ThreadPoolExecutor | None = None

    def read(self, requests: Sequence[Request]) -> list[RawSample | BadSampleError]:
        """Read samples and check their bytes against the index; return an error for each bad sample.

        A sample is bad if its bytes are not those recorded, or its file is missing. Storage that does not answer, or
        denies access, says nothing about samples: the call waits for it.

        The next call overwrites the bytes that this one returns.

        Raises:
            StorageFailedError: If it still does so after ``patience_seconds``.
        """
        self._memory.clear()
        listed = retries.batch(self._find_all, requests, self.patience_seconds)
        return retries.batch(self._fetch_all, listed, self.patience_seconds)

    def __getstate__(self) -> dict[str, object]:
        assert self._threads is None, "a reader travels before it reads"
        return self.__dict__

    def close(self) -> None:
        """Close all files; the next ``read`` opens them again."""
        self._folder.close()

    def _find_all(self, requests: Sequence[Request]) -> list[_Listed | BadSampleError | OSError]:
        found: list[_Listed | BadSampleError | OSError] = []
        failure: OSError | None = None
        for request in requests:
            try:
                found.append(failure or self._find(request))
            except OSError as error:  # others would fail as well, and take their time for it
                failure = error
                found.append(error)
        return found

    def _find(self, request: Request) -> _Listed | BadSampleError:
        try:
            table = self._tables.get(request.shard, self._list)
        except ValueError as error:
            return BadSampleError(Fault(self._shard(request.shard).name, key="", offset=-1, reason=str(error)))
        shard, entry = self._shard(request.shard), table.find(request.stored, request.sample, request.extensions)
        spans = spans_of(entry.members)
        if reason := self._too_large(shard, entry, spans):
            return BadSampleError(Fault(shard.name, entry.key, spans[0].start, f"{shard.name}: {entry.key}{reason}"))
        return _Listed(shard, entry, [(span, self._memory.take(span.end - span.start)) for span in spans])

    def _too_large(self, shard: ShardEntry, entry: SampleEntry, spans: Sequence[Span]) -> str:
        """Return a message if a file of a sample exceeds its limit or the size of its shard; no memory is allocated."""
        for extension, member in entry.members.items():
            if member.length > max_bytes_of(extension):
                return f".{extension} {too_long(member.length, extension)}"
        for span in spans:
            is_large = span.end - span.start > LARGE_BYTES and not self._folder.is_remote
            if is_large and self._ends_before(shard.name, span.end):
                return f": the shard ends before byte {span.end}; it is cut short"
        return ""

    def _list(self, number: int) -> SampleTable:
        shard = self._shard(number)
        name = sidecar_name(shard.name)
        where = self._folder.path_of(name)
        return self._load(shard, name, 0, None, lambda data: SampleTable(parse_samples(where, bytes(data), shard)))

    def _fetch_all(self, listed: Sequence[_Listed | BadSampleError]) -> list[RawSample | BadSampleError | OSError]:
        if not self._folder.is_remote or len(listed) < 2:
            return list(map(self._fetch, listed))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="reading")
        return list(self._threads.map(self._fetch, listed))

    def _fetch(self, listed: _Listed | BadSampleError) -> RawSample | BadSampleError | OSError:
        if isinstance(listed, BadSampleError):
            return listed
        shard, entry, spans = listed
        offset = spans[0][0].start if spans else -1
        members: dict[str, memoryview] = {}
        try:
            for span, memory in spans:
                check = partial(_checked_members, shard, entry, span)
                members |= self._load(shard, shard.name, span.start, memory, check)
        except OSError as error:
            return error
        except DamagedSample as error:
            return BadSampleError(Fault(shard.name, entry.key, offset, str(error)))
        return RawSample(shard.name, entry.key, offset, entry.kind.of_set(self._fps), members)

    def _shard(self, number: int) -> ShardEntry:
        return self._entries.get(number, self._shards.__getitem__)

    def _load(
        self,
        shard: ShardEntry,
        name: str,
        offset: int,
        memory: memoryview | None,
        check: Callable[[bytes | bytearray | memoryview], T],
    ) -> T:
        """Read a part of a shard into ``memory``, or a whole sidecar, and return the result of ``check``.

        Data of a remote folder that fail the check are read once more, as a transfer may have damaged them. Only data
        that pass are cached, under the checksum of their shard, so that a rebuilt set is a new one.

        Raises:
            ValueError: What ``check`` raises, or ``DamagedSample`` if there are no such bytes.
            OSError: If storage fails.
        """
        if not self._folder.is_remote:
            return check(self._read(name, offset, memory))
        cache, length = self._folder.cache, None if memory is None else len(memory)
        key = f"{self._folder.path_of(name)} {shard.checksum} {offset} {length}"
        if cache is not None and (data := cache.get(key)) is not None:
            try:
                return check(data)
            except ValueError:
                cache.drop(key)
        data, found = retries.checked(lambda: self._read(name, offset, memory), check)
        if cache is not None:
            cache.put(key, bytes(data))
        return found

    def _read(self, name: str, offset: int, memory: memoryview | None) -> bytes | bytearray | memoryview:
        """Return the bytes of a file from ``offset`` on that fill ``memory``, or all of its bytes.

        Raises:
            DamagedSample: If the storage, which works, lacks them.
            OSError: If it fails; the message names the file.
        """
        try:
            if memory is None:
                return read_whole(self._folder, name, MAX_SIDECAR_BYTES)
            return memory[: self._folder.read_into(memory, name, offset)]
        except OSError as error:
            where = self._folder.path_of(name)
            if isinstance(error, UnfitFileError):
                raise DamagedSample(f"{where}: {error.strerror}") from None
            if isinstance(error, FileNotFoundError):
                if self._is_missing(name):
                    raise DamagedSample(f"{where}: no such file, though others of its folder are there") from None
            elif memory is not None and self._ends_before(name, end := offset + len(memory)):
                raise DamagedSample(f"{where}: ends before byte {end}; the shard is cut short") from None
            raise OSError(f"{where}: {error}") from error

    def _is_missing(self, name: str) -> bool:
        """Whether a file was deleted; False if its whole folder is out of reach or not mounted."""
        if name not in self._missing:
            try:
                found = self._folder.sizes([name, INDEX_NAME])
            except OSError:
                return False
            if name in found or INDEX_NAME not in found:
                return False
            self._missing.add(name)
        return True

    def _ends_before(self, name: str, end: int) -> bool:
        """Whether a file is too short, which some services report as an error; False if the storage fails."""
        try:
            size = self._folder.size(name)
        except OSError:
            return False
        return size is not None and size < end


def _checked_members(
    shard: ShardEntry, entry: SampleEntry, span: Span, data: bytes | bytearray | memoryview
) -> dict[str, memoryview]:
    found: dict[str, memoryview] = {}
    for extension in span.extensions:
        member = entry.members[extension]
        part = memoryview(data)[member.offset - span.start :][: member.length]
        found[extension] = check_member(part, shard.name, entry, extension)
    return found
