"""Captions and labels: from a table of all videos, or from a file beside each."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vdm.data.shards import MAX_METADATA_BYTES
from vdm.json_values import parse_json, shown
from vdm.regular_files import read_limited
from vdm.text import well_formed

MAX_MANIFEST_BYTES = 1 << 30
COLUMNS = ("file", "caption", "label")
"""What is read of a manifest; other columns are allowed, and of these only ``file`` is required."""


@dataclass(frozen=True)
class Annotation:
    """What somebody wrote about a source."""

    caption: str = ""
    label: str = ""
    """Name of its class, empty if none."""
    more_captions: tuple[str, ...] = ()
    """Further captions; training draws one of all."""


def find_manifest(folder: Path, given: Path | None) -> Path | None:
    """Return the manifest to read: the one given, else ``manifest.tsv`` or ``manifest.csv`` in ``folder``, if any.

    Raises:
        ValueError: If the one given does not exist, neither as it stands nor inside ``folder``.
    """
    if given is not None:
        for path in (given, folder / given):
            if path.is_file():
                return path
        raise ValueError(f"manifest={given}: no such file")
    found = sorted(path for path in folder.iterdir() if path.name.lower() in ("manifest.tsv", "manifest.csv"))
    return found[0] if found else None


def read_manifest(path: Path, folder: Path) -> dict[str, Annotation]:
    """Read a CSV or TSV table whose first line names its columns.

    Args:
        path: The table, in UTF-8, fields separated by tabs, commas or semicolons.
        folder: What the names in column ``file`` are relative to.

    Returns:
        Annotations by name of the file, relative to ``folder``.

    Raises:
        ValueError: In one line that names the file and what is wrong.
    """
    try:
        text = read_limited(path, MAX_MANIFEST_BYTES).decode("utf-8-sig")
        header = text.partition("\n")[0]
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max("\t,;", key=header.count))
        columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
        if "file" not in columns:
            raise ValueError(f"{path}: has no column 'file'; its columns are {', '.join(columns) or 'none'}")
        annotations: dict[str, Annotation] = {}
        for row in rows:
            file, caption, label = ((row.get(columns.get(name, ""), "") or "").strip() for name in COLUMNS)
            name = _relative(file, folder)
            if name in annotations and annotations[name] != Annotation(caption, label):
                raise ValueError(f"{path}: line {rows.line_num} names {file} again, with another caption or label")
            annotations[name] = Annotation(caption, label)
        return annotations
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise ValueError(f"{path}: is not a table ({error})") from None


def _relative(file: str, folder: Path) -> str:
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(folder.resolve()):
        path = path.relative_to(folder.resolve())
    return path.as_posix()


def read_sidecars(video: Path) -> Annotation:
    """Read ``VIDEO.json`` (``{"caption": ..., "label": ...}``) and ``VIDEO.txt`` (a caption); JSON goes first.

    Raises:
        ValueError: In one line, if one is there and can't be used.
    """
    caption, label = "", ""
    if (path := video.with_suffix(".txt")).exists():
        caption = " ".join(_read_text(path).split())
    if (path := video.with_suffix(".json")).exists():
        text = _read_text(path)
        try:
            content = parse_json(text)
        except ValueError as error:
            raise ValueError(f"{path.name} beside it is not JSON ({error})") from None
        if isinstance(content, Mapping):
            caption = _text(content.get("caption"), path) or caption
            label = _text(content.get("label"), path)
    return Annotation(caption, label)


def _read_text(path: Path) -> str:
    try:
        return read_limited(path, MAX_METADATA_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} beside it is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path.name} beside it can't be read: {error.strerror or error}") from None


def _text(value: object, path: Path) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return well_formed(str(value).strip())
        except ValueError:  # thousands of digits
            pass
    raise ValueError(f"{path.name} beside it has {shown(value)} where a caption or label is text or a number")


def merge(first: Annotation, second: Annotation) -> Annotation:
    """Return ``first``, with what it lacks taken from ``second``."""
    captions = first if first.caption else second
    return Annotation(captions.caption, first.label or second.label, captions.more_captions)


def label_names(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """Return the classes in order: by number if all are numbers, else by the alphabet."""
    names = {annotation.label for annotation in annotations if annotation.label}
    are_numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if are_numbers else 0, name)))
