"""Checked reading of this project's own JSON files, which may have been changed since."""

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vdm.files import MALFORMED
from vdm.outside import MAX_BYTES, read_text


def read_record(path: Path, kind: Any, max_bytes: int = MAX_BYTES) -> Any:
    """Return the content of a JSON file after checking it against the type ``kind``.

    Args:
        path: The file.
        kind: A type built of ``dict``, ``list`` and ``TypedDict``, which may have further keys.
        max_bytes: Greatest size of the file.

    Raises:
        ValueError: In one line that names the file, and the key if one is wrong.
    """
    try:
        found: Any = json.loads(read_text(path, max_bytes))
    except MALFORMED as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: can't be read as JSON: {' '.join(str(error).split())}") from None
    return checked(found, kind, path)


def checked(value: Any, kind: Any, source: object) -> Any:
    """Return ``value`` after checking it against the type ``kind``; see ``read_record``.

    Raises:
        ValueError: In one line that begins with the source and the key.
    """
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, detail["loc"]))
        shown = textwrap.shorten(repr(detail["input"]), 60, placeholder=" ...")
        reason = "is missing" if detail["type"] == "missing" else f"{shown}: {detail['msg']}"
        raise ValueError(f"{source}: {key} {reason}" if key else f"{source}: {reason}") from None
    return value
