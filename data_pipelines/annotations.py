"""Captions and labels that people wrote for a video, and the record fields that hold them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vdm.data.captions import captions_in
from vdm.json_values import shown
from vdm.text import well_formed

COLUMNS = {
    "file": ("file", "file_name", "video", "path"),
    "caption": ("caption", "text", "prompt"),
    "label": ("label",),
    "recording": ("recording",),
}
"""Fields of a record and their allowed names, in any case. The first name takes precedence over the others."""


@dataclass(frozen=True)
class Annotation:
    """Caption, label and recording of a source, written by people."""

    caption: str = ""
    label: str = ""
    """Name of its class; empty if it has none."""
    more_captions: tuple[str, ...] = ()
    """Further captions; training draws one of all captions at random."""
    recording: str = ""
    """Name of the recording that the source belongs to; empty if it is a recording of its own."""


def find_columns(names: Iterable[str]) -> dict[str, str]:
    """Find the names of a record that hold its file, caption, label and recording.

    Returns:
        The name found, by the keys of ``COLUMNS``; keys without a name are left out.

    Raises:
        ValueError: In a few words, if two names mean the same and neither is the first of ``COLUMNS``.
    """
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(name.strip().lower(), []).append(name)
    found: dict[str, str] = {}
    for meaning, aliases in COLUMNS.items():
        named = [name for alias in aliases for name in spelled.get(alias, ())]
        if len(named) > 1 and len(spelled.get(meaning, ())) != 1:
            raise ValueError(f"has {' and '.join(map(repr, named))}, which all mean {meaning}; name one {meaning}")
        if named:
            found[meaning] = named[0]
    return found


def parse_annotation(values: Mapping[str, object], columns: Mapping[str, str]) -> Annotation:
    """Read the annotation from a record; ``columns`` as ``find_columns`` returns them.

    Raises:
        ValueError: In a few words, if the value of a caption, label or recording has a type that is not allowed.
    """
    captions = [text.strip() for text in captions_in(values.get(columns.get("caption", "")))]
    label, recording = (_name_in(values.get(columns.get(name, "")), name) for name in ("label", "recording"))
    return Annotation(captions[0] if captions else "", label, tuple(captions[1:]), recording)


def _name_in(value: object, meaning: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if (
        isinstance(value, float) and value.is_integer()
    ):  # pandas writes whole numbers so in a column with missing values
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return well_formed(str(value).strip())
    raise ValueError(f"its {meaning} is {shown(value)}, where a text or a whole number is allowed")


def merge(first: Annotation, second: Annotation) -> Annotation:
    """Return ``first`` with its empty fields taken from ``second``."""
    captions = first if first.caption else second
    return Annotation(
        captions.caption, first.label or second.label, captions.more_captions, first.recording or second.recording
    )


def label_names(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """Return the names of the classes: in numerical order if all are numbers, else in alphabetical order."""
    names = {annotation.label for annotation in annotations if annotation.label}
    are_numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if are_numbers else 0, name)))
