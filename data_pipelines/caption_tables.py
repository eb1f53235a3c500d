"""Caption manifests: tables of the captions and labels of many videos, as CSV, TSV, JSON lines, Parquet or texts."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.annotations import COLUMNS, Annotation, find_columns, parse_annotation
from vdm.data.video_listing import VIDEO_SUFFIXES
from vdm.json_values import mapping, parse_json, shown
from vdm.regular_files import open_regular, read_limited
from vdm.text import decode_text

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_MANIFEST_BYTES = 1 << 30
"""Limit for the file, and for its content when it is decompressed."""
MAX_MANIFEST_ROWS = 10**7
TABLES, LINES, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".parquet",)
NAMES = frozenset(f"{stem}{suffix}" for stem in ("manifest", "metadata") for suffix in (*TABLES, *LINES, *PARQUET))
"""Names of manifests that are found in the folder of the videos, in any case."""
PROMPTS, VIDEOS = "prompts.txt", "videos.txt"
"""Two files that form a manifest together: captions and names of videos, line by line."""
_ROWS_AT_ONCE = 1 << 12
_SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""A first line in which Excel names the separator."""

_Record = tuple[int, Mapping[str, object]]
"""The number of a line or row, counted from 1, and its values by name."""


@dataclass(frozen=True)
class Manifest:
    """Content of a manifest."""

    rows: Mapping[str, Annotation]
    """Annotations by name of the video, relative to the folder of the videos if it lies there."""
    files: tuple[Path, ...]
    """The files that it was read from."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how it was read, in one line each."""


def find_manifest(folder: Path, given: Path | None) -> Path | None:
    """Return the path of the manifest: ``given``, else a file of ``folder`` with a name of a manifest, else None.

    Raises:
        ValueError: If ``given`` exists neither by itself nor inside ``folder``, or ``folder`` has several manifests.
    """
    if given is not None:
        for path in (given, folder / given):
            if path.is_file():
                return path
        raise ValueError(f"manifest={given}: no such file")
    files = sorted(path for path in folder.iterdir() if not path.is_dir())
    found = [path for path in files if path.name.lower() in NAMES]
    found += [path for path in files if path.name.lower() == PROMPTS and _beside(path, VIDEOS)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"input={folder}: has several manifests: {names}; choose one with manifest=FILE")
    return found[0] if found else None


def read_manifest(path: Path, folder: Path) -> Manifest:
    """Read a manifest. Its suffix tells the format; an unknown suffix means a table with separators.

    Args:
        path: The manifest.
        folder: Folder that the names of videos are relative to.

    Raises:
        ValueError: In one line that names the file and what is wrong.
    """
    suffix = path.suffix.lower()
    notes: list[str] = []
    files = (path,)
    try:
        if suffix in PARQUET:
            records = _parquet_records(path)
        elif path.name.lower() == PROMPTS:
            files = (path, _videos_of(path))
            records = _paired_records(*(_read_text(one, notes) for one in files))
        else:
            text = _read_text(path, notes)
            records = _json_records(text) if suffix in LINES else _table_records(text)
        return Manifest(_annotations(records, folder), files, tuple(notes))
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {' '.join(str(error.strerror or error).split())}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _annotations(records: Iterator[_Record], folder: Path) -> dict[str, Annotation]:
    found: dict[str, Annotation] = {}
    known: dict[tuple[str, ...], dict[str, str]] = {}
    for line, values in records:
        names = tuple(values)
        if names not in known:
            known[names] = _checked_columns(names)
        columns = known[names]
        file = values[columns["file"]]
        if not isinstance(file, str) or not file.strip():
            raise ValueError(f"line {line} names no file, but {shown(file)}")
        try:
            annotation = parse_annotation(values, columns)
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        if found.setdefault(_relative(file.strip(), folder), annotation) != annotation:
            raise ValueError(f"line {line} names {file.strip()} again, with another caption or label")
        if len(found) > MAX_MANIFEST_ROWS:
            raise ValueError(f"has more than {MAX_MANIFEST_ROWS} rows")
    return found


def _checked_columns(names: tuple[str, ...]) -> dict[str, str]:
    columns = find_columns(names)
    if "file" not in columns:
        known = ", ".join(f"'{name}'" for name in COLUMNS["file"])
        raise ValueError(f"has no column {known}; its columns are {', '.join(names)[:200] or 'none'}")
    return columns


def _relative(file: str, folder: Path) -> str:
    path = Path(file)
    for start in (folder.absolute(), folder.resolve()):
        if path.is_relative_to(start):
            path = path.relative_to(start)
    return path.as_posix()


def _read_text(path: Path, notes: list[str]) -> str:
    text, encoding = decode_text(read_limited(path, MAX_MANIFEST_BYTES))
    if encoding != "UTF-8":
        notes.append(f"{path.name}: read as {encoding}")
    return text


def _table_records(text: str) -> Iterator[_Record]:
    said = _SEPARATOR.match(text)
    skipped, text = (1, text[said.end() :]) if said else (0, text)
    header = text.partition("\n")[0]
    delimiter = said[1] if said else max("\t,;", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        line = rows.line_num + 1 + skipped
        try:
            cells = next(rows)
        except StopIteration:
            if not names:
                _checked_columns(())
            return
        except csv.Error as error:
            raise ValueError(
                f"is not a table: line {line}: {error}; a quoted text needs quotes at both ends, those in it doubled"
            ) from None
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = cells
            _checked_columns(tuple(names))
            continue
        if any(cell.strip() for cell in cells[len(names) :]):
            raise ValueError(
                f"line {line} has {len(cells)} cells, more than the {len(names)} columns; quote texts that have a "
                f"{_NAMES_OF_DELIMITERS.get(delimiter, delimiter)} in them"
            )
        _check_lines(cells, delimiter, line)
        yield line, dict(zip(names, cells, strict=False))


_NAMES_OF_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


def _check_lines(cells: list[str], delimiter: str, line: int) -> None:
    """Refuse a cell of several lines that look like rows: its closing quotes are missing."""
    for cell in cells:
        for inner in cell.split("\n")[1:]:
            first, separator, _ = inner.partition(delimiter)
            if separator and Path(first.strip().strip('"')).suffix.lower() in VIDEO_SUFFIXES:
                raise ValueError(f"is not a table: line {line} has quotes that end only after the row of {first[:200]}")


def _json_records(text: str) -> Iterator[_Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, mapping(parse_json(line))
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON object ({error})") from None


def _parquet_records(path: Path) -> Iterator[_Record]:
    import pyarrow as pa  # its import takes a fifth of a second, which other manifests need not wait for
    import pyarrow.parquet as pq

    with open_regular(path) as opened:
        if opened.seek(0, io.SEEK_END) > MAX_MANIFEST_BYTES:
            raise ValueError(f"has more than {MAX_MANIFEST_BYTES} bytes")
        opened.seek(0)
        try:
            with pq.ParquetFile(opened, page_checksum_verification=True) as file:
                yield from _rows_of(file)
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None


def _rows_of(file: "ParquetFile") -> Iterator[_Record]:
    columns = _checked_columns(tuple(file.schema_arrow.names))
    if file.metadata.num_rows > MAX_MANIFEST_ROWS:
        raise ValueError(f"has more than {MAX_MANIFEST_ROWS} rows")
    left, row = MAX_MANIFEST_BYTES, 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns.values()), use_threads=False):
        left -= batch.nbytes
        if left < 0:
            raise ValueError(f"unpacks to more than {MAX_MANIFEST_BYTES} bytes")
        for values in batch.to_pylist():
            row += 1
            yield row, values


def _paired_records(prompts: str, videos: str) -> Iterator[_Record]:
    captions, files = prompts.split("\n"), videos.rstrip().split("\n")
    if len(captions) < len(files) or any(caption.strip() for caption in captions[len(files) :]):
        count = len(prompts.rstrip().split("\n"))
        raise ValueError(f"has {count} lines, where {VIDEOS} has {len(files)}; they go line by line")
    for number, (caption, file) in enumerate(zip(captions, files, strict=False), 1):
        if file.strip() or caption.strip():
            yield number, {"file": file, "caption": caption}


def _videos_of(prompts: Path) -> Path:
    if (videos := _beside(prompts, VIDEOS)) is None:
        raise ValueError(f"has no {VIDEOS} beside it, which would name the video of each line")
    return videos


def _beside(path: Path, name: str) -> Path | None:
    return next((one for one in sorted(path.parent.iterdir()) if one.name.lower() == name), None)
