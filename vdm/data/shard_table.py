"""The shards of an index as columns: of a million they take 80 MB, where as objects they would take 1 GB.

As a Parquet file they have the columns ``name``, ``num_bytes``, ``checksum`` and ``keys`` (16 bytes each), and
``samples``, which maps the names of kinds (``16x256x256@24.0``) to numbers of samples.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from vdm.data.shards import CHECKSUM_BYTES, Kind, ShardEntry

_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("checksum", pa.binary(CHECKSUM_BYTES), nullable=False),
        pa.field("keys", pa.binary(CHECKSUM_BYTES), nullable=False),
        pa.field("samples", pa.map_(pa.string(), pa.int64()), nullable=False),
    ]
)
MAX_SHARDS = 10**7
MAX_SAMPLES = 10**9
"""Of one shard."""
MAX_UNPACKED_BYTES = 1 << 31
_ROWS_AT_ONCE = 1 << 14
_ODD_NAME = r"[/\\:\x00-\x1f\x7f]|^\.{0,2}$|^.{256}"
"""What no shard's name holds; see ``is_plain_name``."""


class _Counts(NamedTuple):
    """How many samples of each kind each shard has, where there are any: as many rows as such pairs."""

    kinds: tuple[Kind, ...]
    """All that there are."""
    kind: np.ndarray
    """Number of the kind."""
    shard: np.ndarray
    """Number of the shard."""
    count: np.ndarray


class ShardTable(Sequence[ShardEntry]):
    """Shards in order; an entry is made when it is asked for.

    Args:
        columns: What ``of`` or ``from_parquet`` makes.
    """

    def __init__(self, columns: pa.Table) -> None:
        self._columns = columns

    @staticmethod
    def of(shards: Iterable[ShardEntry]) -> "ShardTable":
        """Return the table of some shards."""
        rows = [
            {
                "name": shard.name,
                "num_bytes": shard.num_bytes,
                "checksum": bytes.fromhex(shard.checksum),
                "keys": bytes.fromhex(shard.keys),
                "samples": [(kind.name, count) for kind, count in sorted(shard.kinds.items(), key=_by_name)],
            }
            for shard in shards
        ]
        return ShardTable(pa.Table.from_pylist(rows, _SCHEMA))

    @staticmethod
    def from_parquet(data: bytes | bytearray) -> "ShardTable":
        """Read the content of a Parquet file.

        Raises:
            ValueError: If it is something else.
        """
        try:
            with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
                columns = _read_bounded(file)
            pa.default_memory_pool().release_unused()
            table = ShardTable(columns)
            counts, num_bytes = table._counts, table.num_bytes
        except (OSError, BufferError, MemoryError, pa.ArrowException) as error:
            raise ValueError(" ".join(str(error).split())) from None
        for name in columns.column("name").filter(_are_odd(columns.column("name"))).to_pylist():
            raise ValueError(f"shard name {name!r} is not a plain file name")
        if min(num_bytes.min(initial=0), counts.count.min(initial=0)) < 0:
            raise ValueError("has sizes or counts below 0")
        if counts.count.max(initial=0) > MAX_SAMPLES:
            raise ValueError(f"has a shard of more than {MAX_SAMPLES} samples")
        return table

    def to_parquet(self) -> bytes:
        """Return the content of a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            self._columns,
            sink,
            compression="zstd",
            use_dictionary=cast(Any, ["samples.key_value.key"]),  # in the other columns no two values are alike
            write_page_checksum=True,
        )
        return sink.getvalue().to_pybytes()

    @staticmethod
    def joined(tables: Sequence["ShardTable"]) -> "ShardTable":
        """Return one table of the shards of several."""
        return ShardTable(pa.concat_tables([one._columns for one in tables])) if tables else ShardTable.of(())

    def chosen(self, names: Collection[str]) -> "ShardTable":
        """Return the shards of some names, in the order of this table."""
        is_chosen = pc.call_function(
            "is_in", [self._columns.column("name")], pc.SetLookupOptions(pa.array(list(names)))
        )
        return ShardTable(self._columns.filter(is_chosen))

    def __len__(self) -> int:
        return self._columns.num_rows

    @overload
    def __getitem__(self, number: int) -> ShardEntry: ...

    @overload
    def __getitem__(self, number: slice) -> "ShardTable": ...

    def __getitem__(self, number: int | slice) -> "ShardEntry | ShardTable":
        if isinstance(number, slice):
            start, stop, step = number.indices(len(self))
            if step != 1:
                raise ValueError("shards are taken in order")
            return ShardTable(self._columns.slice(start, max(0, stop - start)))
        if not -len(self) <= number < len(self):
            raise IndexError(f"there are {len(self)} shards, not {number}")
        (row,) = self._columns.slice(number % len(self), 1).to_pylist()
        kinds = {Kind.parse(name): count for name, count in row["samples"]}
        return ShardEntry(row["name"], row["num_bytes"], row["checksum"].hex(), kinds, row["keys"].hex())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardTable) and self._columns.equals(other._columns)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # equal by content, like a list

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardTable, (self._columns,)  # without what is cached

    @property
    def names(self) -> list[str]:
        """Name of each shard."""
        return self._columns.column("name").to_pylist()

    @property
    def num_bytes(self) -> np.ndarray:
        """Size of each shard."""
        return _numbers(self._columns.column("num_bytes").combine_chunks())

    @property
    def num_samples(self) -> np.ndarray:
        """Number of samples of each shard."""
        return self.count(self._counts.kinds)

    @cached_property
    def kinds(self) -> dict[Kind, int]:
        """Number of samples of each kind."""
        counts = self._counts
        totals = np.zeros(len(counts.kinds), np.int64)
        np.add.at(totals, counts.kind, counts.count)
        return {kind: int(total) for kind, total in zip(counts.kinds, totals, strict=True) if total}

    def count(self, kinds: Iterable[Kind]) -> np.ndarray:
        """Return how many samples of some kinds each shard has."""
        counts, wanted = self._counts, set(kinds)
        is_wanted = np.array([kind in wanted for kind in counts.kinds], dtype=bool)[counts.kind]
        found = np.zeros(len(self), np.int64)
        np.add.at(found, counts.shard[is_wanted], counts.count[is_wanted])
        return found

    @cached_property
    def keys(self) -> str:
        """Digest of the samples' keys in order, made of those of shards; see ``ShardEntry.keys``."""
        digest = xxhash.xxh3_128()
        for batch in self._columns.select(["keys"]).to_batches(max_chunksize=1 << 16):
            digest.update(b"".join(batch.column(0).to_pylist()))
        return digest.hexdigest()

    @cached_property
    def _counts(self) -> _Counts:
        column = self._columns.column("samples").combine_chunks()
        ends = _numbers(column.offsets)
        first, num_pairs = int(ends[0]), int(ends[-1] - ends[0])
        names = column.keys.slice(first, num_pairs).dictionary_encode()
        return _Counts(
            tuple(map(Kind.parse, names.dictionary.to_pylist())),
            _numbers(names.indices),
            np.repeat(np.arange(len(self)), np.diff(ends)),
            _numbers(column.items.slice(first, num_pairs)),
        )


def _numbers(array: Any) -> np.ndarray:
    """Return an Arrow array of numbers without copying it; its own ``to_numpy`` would import pandas."""
    return np.from_dlpack(array)


def _by_name(item: tuple[Kind, int]) -> str:
    return item[0].name


def is_plain_name(name: str) -> bool:
    """Tell whether a name may be that of a shard: of a file in the set's folder, for every program that reads it.

    It has no separators, nothing that makes it a URL or a command (``pipe:``), and no characters that can't be seen.
    """
    return name.isprintable() and not _are_odd(pa.array([name]))[0].as_py()


def _are_odd(names: Any) -> Any:
    return pc.call_function("match_substring_regex", [names], pc.MatchSubstringOptions(_ODD_NAME))


def _read_bounded(file: pq.ParquetFile) -> pa.Table:
    """Read a file that may unpack to much more than it has."""
    if not file.schema_arrow.equals(_SCHEMA):
        raise ValueError(f"has the columns {', '.join(file.schema_arrow.names)} where others are expected, or types")
    num_rows = file.metadata.num_rows
    if num_rows > MAX_SHARDS:
        raise ValueError(f"lists {num_rows} shards, more than {MAX_SHARDS}")
    batches: list[pa.RecordBatch] = []
    left = MAX_UNPACKED_BYTES
    for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
        batches.append(batch)
        left -= batch.nbytes
        if left < 0:
            raise ValueError(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    return pa.Table.from_batches(batches, _SCHEMA).combine_chunks()
