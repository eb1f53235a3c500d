"""Sidecars with captions: ``a.txt`` or ``a.json`` beside ``a.mp4``, also named ``a.mp4.txt`` and ``a.mp4.json``."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.annotations import Annotation, find_columns, merge, parse_annotation
from vdm.data.shards import MAX_METADATA_BYTES
from vdm.json_values import mapping, parse_json
from vdm.regular_files import read_limited
from vdm.text import decode_text

JSON, TEXT = ".json", ".txt"
"""Suffixes, in any case. JSON takes precedence over text."""


@dataclass(frozen=True)
class SidecarContent:
    """Content of the sidecars of one video."""

    annotation: Annotation = Annotation()
    used: tuple[Path, ...] = ()
    """The sidecars that were used, or are named in ``faults``."""
    faults: tuple[str, ...] = ()
    """Sidecars that can't be used, with the reason, in one line each."""
    encodings: tuple[tuple[Path, str], ...] = ()
    """Sidecars that are not in UTF-8, with their encoding."""


class Sidecars:
    """The sidecars of all videos.

    Args:
        files: All files that are not videos.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._files: dict[tuple[Path, str], list[Path]] = {}
        for path in files:
            if path.suffix.lower() in (JSON, TEXT):
                self._files.setdefault((path.parent, spelling(path.stem)), []).append(path)

    def of(self, video: Path) -> list[Path]:
        """Return the sidecars of a video, whatever Unicode form their names have."""
        names = dict.fromkeys((spelling(video.stem), spelling(video.name)))
        return [path for name in names for path in self._files.get((video.parent, name), ())]


def spelling(name: str) -> str:
    """Return a name in Unicode form NFC; macOS and other systems encode the same letters differently."""
    return unicodedata.normalize("NFC", name)


def read_sidecars(files: Sequence[Path]) -> SidecarContent:
    """Read the sidecars of one video."""
    found: dict[str, list[tuple[Path, Annotation]]] = {JSON: [], TEXT: []}
    used: list[Path] = []
    faults: list[str] = []
    encodings: list[tuple[Path, str]] = []
    for path in files:
        kind = path.suffix.lower()
        try:
            annotation, encoding = _read(path, kind)
        except ValueError as error:
            faults.append(f"{path.name} beside it {error}")
            used.append(path)
            continue
        if encoding != "UTF-8":
            encodings.append((path, encoding))
        if annotation is not None:
            found[kind].append((path, annotation))
            used.append(path)
    merged = Annotation()
    for kind in (JSON, TEXT):
        if len({annotation for _, annotation in found[kind]}) > 1:
            names = " and ".join(path.name for path, _ in found[kind])
            faults.append(f"{names} beside it differ, and none is used; keep one")
        elif found[kind]:
            merged = merge(merged, found[kind][0][1])
    return SidecarContent(merged, tuple(used), tuple(faults), tuple(encodings))


def _read(path: Path, kind: str) -> tuple[Annotation | None, str]:
    """Return the annotation in a sidecar, None if it is JSON without one, and the encoding of the file."""
    try:
        text, encoding = decode_text(read_limited(path, MAX_METADATA_BYTES))
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror or error}") from None
    if kind == TEXT:
        return Annotation(" ".join(text.split())), encoding
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None
    try:
        values = mapping(content)
        columns = find_columns(values)
        return (
            parse_annotation(values, columns) if columns.keys() & {"caption", "label", "recording"} else None
        ), encoding
    except ValueError as error:
        raise ValueError(f"can't be used: {error}") from None
