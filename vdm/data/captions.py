"""The captions of a sample: none, one, or several of which training chooses one at random.

This module does not import PyTorch, since the data tools use it before they have checked their settings.
"""

import math
from collections.abc import Mapping
from typing import Any

from vdm.json_values import mapping, parse_json, shown
from vdm.text import decode_text, well_formed

MAX_CAPTION = 1 << 14
"""Characters of a caption that are kept; text encoders read fewer."""


def captions_in(value: object) -> tuple[str, ...]:
    """Return the captions in a value of JSON; null, NaN (a missing value of pandas) and blank texts are no captions.

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
    """Return the metadata in a sample's ``.json``.

    Raises:
        ValueError: If it is no object in JSON, or text of no known encoding.
    """
    return mapping(parse_json(decode_text(data)[0]))
