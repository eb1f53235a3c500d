"""JSON that this project wrote, read with no trust that it is still what was written."""

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vdm.files import MALFORMED
from vdm.outside import MAX_BYTES, read_text


def read_record(path: Path, kind: Any, max_bytes: int = MAX_BYTES) -> Any:
    """Return what a JSON file holds, once it is known to have the shape of ``kind``.

    Args:
        path: The file.
        kind: Built of ``dict``, ``list`` and ``TypedDict``; what a ``TypedDict`` does not list may be there too.
        max_bytes: Size from which on the file is refused.

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
    """Return ``value``, once it is known to have the shape of ``kind``; see ``read_record``.

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
