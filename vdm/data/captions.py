"""The captions of a sample: one, several of which training draws one, or none.

Without PyTorch: the data tools read captions before they know that their settings are sound.
"""

import math
from collections.abc import Mapping
from typing import Any

from vdm.json_values import mapping, parse_json, shown
from vdm.text import decode_text, well_formed

MAX_CAPTION = 1 << 14
"""Characters of a caption that are kept; no text encoder reads so far."""


def captions_in(value: object) -> tuple[str, ...]:
    """Return the captions that a value of JSON stands for; null, NaN (a missing value of pandas) and blanks are none.

    Raises:
        ValueError: If it is neither a text, a number nor a list of texts.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (str(value)[:MAX_CAPTION],)
    texts: list[Any] = value if isinstance(value, list) else [value]
    for one in texts:
        if not isinstance(one, str):
            kind = f"a list with {shown(one)}" if isinstance(value, list) else shown(value)
            raise ValueError(f"its caption is {kind}, where a text, a number or a list of texts is allowed")
    return tuple(well_formed(one[:MAX_CAPTION]) for one in texts if one.strip())


def captions_of(metadata: Mapping[str, Any], text: bytes | bytearray | memoryview) -> tuple[str, ...]:
    """Return a sample's captions, none of them blank.

    Args:
        metadata: Its ``.json``.
        text: Its ``.txt``, for a ``.json`` without a caption.

    Raises:
        ValueError: See ``captions_in`` and ``decode_text``.
    """
    return captions_in(metadata.get("caption")) or captions_in(decode_text(text)[0].strip())


def parse_metadata(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return what a sample's ``.json`` says.

    Raises:
        ValueError: If it is no object in JSON, or text of no known encoding.
    """
    return mapping(parse_json(decode_text(data)[0]))
