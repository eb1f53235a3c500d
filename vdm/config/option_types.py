"""What the annotation of an option allows, read from its parts: types, choices, dataclasses, metadata."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


@cache
def kinds_of(annotation: Any) -> frozenset[type]:
    """Return the plain types that an annotation allows; ``list`` for all sequences, ``dict`` for mappings."""
    return frozenset(_plain_types(annotation))


def choices_of(annotation: Any) -> list[str]:
    """Return the words of a ``Literal``; nothing if the option allows other values too."""
    members = [member for member in _members(annotation) if member is not NoneType]
    if not all(get_origin(member) is Literal for member in members):
        return []
    return [str(choice) for member in members for choice in get_args(member)]


@cache
def nested_dataclass(annotation: Any) -> type | None:
    """Return the dataclass among the members of an annotation, or None."""
    found = [member for member in _members(annotation) if isinstance(member, type) and dataclasses.is_dataclass(member)]
    return found[0] if found else None


@cache
def dataclass_in_mapping(annotation: Any) -> Any:
    """Return the annotation of the values of a mapping of dataclasses, or None for other annotations."""
    for member in _members(annotation):
        if get_origin(member) is Mapping and nested_dataclass(get_args(member)[1]) is not None:
            return get_args(member)[1]
    return None


def metadata_of(annotation: Any) -> Iterator[Any]:
    """Yield all metadata of an annotation, at any depth."""
    if get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]
    for inner in get_args(annotation):
        yield from metadata_of(inner) if get_origin(annotation) is not Literal else ()


def _plain_types(annotation: Any) -> Iterator[type]:
    for member in _members(annotation):
        origin = get_origin(member)
        if origin is Literal:
            yield from (type(choice) for choice in get_args(member))
        elif origin is not None:
            yield list if origin in (list, tuple, Sequence) else dict if origin is Mapping else origin
        elif isinstance(member, type):
            yield member


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, without metadata."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(inner for member in get_args(annotation) for inner in _members(member))
    return (annotation,)
