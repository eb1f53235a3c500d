"""Stage manifests: Parquet tables of the videos or clips after each stage of curation."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from vdm.files import replacing
from vdm.regular_files import open_regular


@dataclass(frozen=True)
class VideoRow:
    """A video file, as its container describes it."""

    source: str
    """Name of the file, relative to the input folder."""
    fingerprint: str
    """Changes when the file does."""
    num_bytes: int
    checksum: str = ""
    """Checksum of the whole file."""
    codec: str = ""
    seconds: float | None = None
    """Duration that the file declares."""
    fps: float | None = None
    height: int | None = None
    """Rows of the upright picture with square pixels."""
    width: int | None = None
    dropped: str | None = None
    """Why it was dropped; None if it was kept."""


@dataclass(frozen=True)
class ClipRow:
    """A clip of a video."""

    key: str
    """Its name in the shards."""
    source: str
    start_seconds: float
    """Start, counted from the first frame of the file."""
    shot: int
    """Number of its shot in the file."""
    shot_seconds: float
    """Duration of its shot."""
    source_fps: float
    source_height: int
    source_width: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores by name; in the table each is a column."""
    perceptual_hash: bytes | None = None
    """Perceptual hashes of its first, middle and last frame, 8 bytes each."""
    caption: str = ""
    label: str = ""
    caption_from: str = ""
    """Origin of the caption: ``annotation`` or the name of a captioner; empty if there is no caption."""
    dropped: str | None = None
    """Why it was dropped; None if it was kept."""


Row = TypeVar("Row", VideoRow, ClipRow)


def kept(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that were not dropped."""
    return [row for row in rows if row.dropped is None]


def by_source(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each file; files and rows stay in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.source, []).append(row)
    return found


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row], notes: Mapping[str, str] | None = None) -> None:
    """Write a table atomically: a reader sees all of it or nothing, even after a power failure.

    Args:
        path: The Parquet file.
        kind: Class of the rows.
        rows: In order; may be empty.
        notes: Further texts that are stored in the file, by name.
    """
    columns = _columns(kind)
    fields = [pa.field(name, getattr(pa, column)()) for name, column in columns.items()]
    records = [{name: getattr(row, name) for name in columns} for row in rows]
    if kind is ClipRow:
        scores = list(dict.fromkeys(name for row in rows for name in row.scores))  # pyright: ignore
        fields += [pa.field(name, pa.float64()) for name in scores]
        for record, row in zip(records, rows, strict=True):
            record |= {name: row.scores.get(name) for name in scores}  # pyright: ignore
    table = pa.Table.from_pylist(records, pa.schema(fields, metadata=dict(notes or {})))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        pq.write_table(table, file, write_page_checksum=True)


def read_rows(path: Path, kind: type[Row]) -> tuple[list[Row], dict[str, str]]:
    """Read a table that ``write_rows`` wrote.

    Returns:
        The rows and the notes.

    Raises:
        ValueError: In one line, if the file is missing, unreadable or damaged.
    """
    columns = _columns(kind)
    try:
        with open_regular(path) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            table = file.read()
        notes = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        return [_row(record, columns, kind) for record in table.to_pylist()], notes
    except (OSError, TypeError, ValueError) as error:  # pyarrow's exceptions derive from these
        raise ValueError(f"{path}: can't be read: {' '.join(str(error).split())}") from None


def _row(record: dict[str, Any], columns: Mapping[str, str], kind: type[Row]) -> Row:
    known = {name: record[name] for name in columns if name in record}
    if kind is ClipRow:
        known["scores"] = {name: value for name, value in record.items() if name not in columns and value is not None}
    return kind(**known)


_ARROW = {str: "string", int: "int64", float: "float64", bytes: "binary"}


def _columns(kind: type[VideoRow] | type[ClipRow]) -> dict[str, str]:
    """Return the Arrow type of each field that is stored as a column."""
    hints = get_type_hints(kind)
    found: dict[str, str] = {}
    for one in dataclasses.fields(kind):
        plain = [column for type_, column in _ARROW.items() if type_ in (hints[one.name], *_members(hints[one.name]))]
        if plain:
            found[one.name] = plain[0]
    return found


def _members(hint: Any) -> tuple[Any, ...]:
    return tuple(getattr(hint, "__args__", ())) if type(hint).__name__ == "UnionType" else ()
