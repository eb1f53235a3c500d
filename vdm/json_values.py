"""Typed values from untrusted JSON; other types and ranges raise ``ValueError``."""

import json
import math
from collections.abc import Mapping
from typing import Any


def parse_json(data: bytes | bytearray | str) -> Any:
    """Return the value of JSON text.

    The caller must bound the length of ``data``: values may take some 30 times its memory.

    Raises:
        ValueError: If it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def spelled(value: Any) -> Any:
    """Return plain values for JSON: numbers that are not finite, which it lacks, become texts, such as ``Infinity``."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: spelled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(one) for one in value]
    return value


def whole_number(value: object, low: int, high: int) -> int:
    """Return a whole number from ``low`` to ``high``.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ValueError(f"{shown(value)} is no whole number from {low} to {high}")


def positive_number(value: object) -> float:
    """Return a number above 0 that is not infinite.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e300 and value < math.inf:
        return float(value)
    raise ValueError(f"{shown(value)} is no number above 0")


def text(value: object, max_chars: int) -> str:
    """Return a text of no more than ``max_chars`` characters.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, str) and len(value) <= max_chars:
        return value
    raise ValueError(f"{shown(value)} is no text of at most {max_chars} characters")


def mapping(value: object) -> dict[str, Any]:
    """Return an object of names and values.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, dict):
        return value
    raise ValueError(f"{shown(value)} is no object of names and values")


def sequence(value: object) -> list[Any]:
    """Return a list.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, list):
        return value
    raise ValueError(f"{shown(value)} is no list")


def known_version(value: object, known: int, what: str) -> int:
    """Return the version of a format if this program can read it.

    Args:
        value: Version in the file, counted from 1.
        known: Newest version that this program reads.
        what: Name of the file's kind, for the message.

    Raises:
        ValueError: If it is something else. The message names both versions.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > known:
        raise ValueError(
            f"{what} has version {shown(value)}, this program reads {known}; it was written by a newer one, use that"
        )
    return whole_number(value, 1, known)


def shown(value: object) -> str:
    """Return a short representation of a JSON value; the type alone if the value is large."""
    if isinstance(value, dict | list) or (isinstance(value, int) and value.bit_length() > 256):
        return f"a {type(value).__name__}"
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}\u2026"
