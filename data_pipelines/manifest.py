"""Manifests: Parquet tables of the videos and clips that one stage hands to the next."""

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
    """A file, as its container describes it."""

    source: str
    """Name of the file, relative to the input folder."""
    fingerprint: str
    """Changes when the file does."""
    num_bytes: int
    checksum: str = ""
    """Of the whole file."""
    codec: str = ""
    seconds: float | None = None
    """How long it says that it lasts."""
    fps: float | None = None
    height: int | None = None
    """Rows, upright and of square pixels."""
    width: int | None = None
    dropped: str | None = None
    """Why it is not used, or None."""


@dataclass(frozen=True)
class ClipRow:
    """A clip that has been cut, or may be."""

    key: str
    """Its name in the shards."""
    source: str
    start_seconds: float
    """From the first frame of the file."""
    shot: int
    """Number of the shot in the file, without a change of scene."""
    shot_seconds: float
    """How long that shot lasts."""
    source_fps: float
    source_height: int
    source_width: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """What was measured, by name; each a column of its own in the table."""
    perceptual_hash: bytes | None = None
    """Of its first, middle and last frame, 8 bytes each."""
    caption: str = ""
    label: str = ""
    caption_from: str = ""
    """Where the caption comes from: ``annotation``, the name of a model, or nowhere."""
    dropped: str | None = None
    """Why it is not used, or None."""


Row = TypeVar("Row", VideoRow, ClipRow)


def kept(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that are not dropped."""
    return [row for row in rows if row.dropped is None]


def by_source(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each file, both in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.source, []).append(row)
    return found


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row], notes: Mapping[str, str] | None = None) -> None:
    """Write a table beside its place, then rename it: a reader sees all of it or nothing, after a power failure too.

    Args:
        path: The Parquet file.
        kind: Of the rows, which may be none.
        rows: In order.
        notes: What is to be remembered besides, as text.
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
    """Read what ``write_rows`` wrote.

    Returns:
        The rows and the notes.

    Raises:
        ValueError: In one line, if there is no such file, or it can't be read or is damaged.
    """
    columns = _columns(kind)
    try:
        with open_regular(path) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            table = file.read()
        notes = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        return [_row(record, columns, kind) for record in table.to_pylist()], notes
    except (OSError, TypeError, ValueError) as error:  # pyarrow's own are kinds of these
        raise ValueError(f"{path}: can't be read: {' '.join(str(error).split())}") from None


def _row(record: dict[str, Any], columns: Mapping[str, str], kind: type[Row]) -> Row:
    known = {name: record[name] for name in columns if name in record}
    if kind is ClipRow:
        known["scores"] = {name: value for name, value in record.items() if name not in columns and value is not None}
    return kind(**known)


_ARROW = {str: "string", int: "int64", float: "float64", bytes: "binary"}


def _columns(kind: type[VideoRow] | type[ClipRow]) -> dict[str, str]:
    """Return the Arrow type of each field that has a column of its own."""
    hints = get_type_hints(kind)
    found: dict[str, str] = {}
    for one in dataclasses.fields(kind):
        plain = [column for type_, column in _ARROW.items() if type_ in (hints[one.name], *_members(hints[one.name]))]
        if plain:
            found[one.name] = plain[0]
    return found


def _members(hint: Any) -> tuple[Any, ...]:
    return tuple(getattr(hint, "__args__", ())) if type(hint).__name__ == "UnionType" else ()
