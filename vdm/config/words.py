"""Descriptions of annotations: the values that they allow, in words."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import BaseMetadata, GroupedMetadata

_TOO_MANY = 10**7
"""An upper bound from here on is mentioned only if a value exceeds it."""
_LIMITS = ("ge", "gt", "le", "lt", "multiple_of")


class Described(NamedTuple):
    """Metadata of an annotation: its description, in place of the one derived from the type."""

    words: str


def described(annotation: Any, value: object = None) -> str:
    """Return the values that an annotation allows, e.g. ``a whole number, at least 1, or null``.

    Args:
        annotation: The annotation.
        value: The wrong value that was found, if any.
    """
    alternatives = list(dict.fromkeys(_alternatives(annotation, value)))
    ends_in_null = "null" in alternatives
    others = [one for one in alternatives if one != "null"]
    words = " or ".join([", ".join(others[:-1]), others[-1]] if len(others) > 1 else others)
    return words + ", or null" * ends_in_null


def limits_of(annotation: Any) -> dict[str, Any]:
    """Return the numeric bounds in an annotation by their names in annotated_types: ``ge``, ``lt`` ..."""
    found: dict[str, Any] = {}
    if get_origin(annotation) is Annotated:
        found |= dict(_limits(get_args(annotation)[1:]))
    for inner in get_args(annotation) if get_origin(annotation) in (Annotated, Union, UnionType) else ():
        found |= limits_of(inner)
    return found


def _alternatives(annotation: Any, value: object) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    metadata: tuple[Any, ...] = ()
    if origin is Annotated:
        annotation, *rest = arguments
        metadata = tuple(rest)
        origin, arguments = get_origin(annotation), get_args(annotation)
    own = next((entry.words for entry in metadata if isinstance(entry, Described)), None)
    if own is not None:
        yield own
    elif origin in (Union, UnionType):
        for member in arguments:
            yield from _alternatives(member, value)
    elif origin is Literal:
        yield from map(str, arguments)
    elif annotation is NoneType:
        yield "null"
    elif annotation is bool:
        yield from ("true", "false")
    elif annotation in (int, float):
        noun = "a whole number" if annotation is int else "a number"
        yield noun + _bounds(dict(_limits(metadata)), value)
    elif origin in (list, tuple, Sequence):
        yield f"a list, of each {described(arguments[0])}"
    else:
        yield {str: "text", Path: "a path", Mapping: "a mapping"}.get(origin or annotation, str(annotation))


def _limits(metadata: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield bounds by their names in annotated_types, those in pydantic's ``Field`` too."""
    for entry in metadata:
        if isinstance(entry, GroupedMetadata):
            yield from _limits(list(entry))
        elif isinstance(entry, BaseMetadata):
            yield from ((name, getattr(entry, name)) for name in _LIMITS if hasattr(entry, name))
        else:  # pydantic's Field
            yield from _limits(getattr(entry, "metadata", ()))


def _bounds(limits: Mapping[str, Any], value: object) -> str:
    least = limits.get("ge", limits.get("gt"))
    most = limits.get("le", limits.get("lt"))
    is_passed = isinstance(value, int | float) and most is not None and value >= most
    has_most = most is not None and (abs(most) < _TOO_MANY or is_passed)
    words = f", at least {least}" if "ge" in limits else f" above {least}" if "gt" in limits else ""
    if has_most:
        words += f"{' and' if words else ','} {'at most' if 'le' in limits else 'below'} {most}"
    return words + (f", a multiple of {limits['multiple_of']}" if "multiple_of" in limits else "")
