"""Checks of values against the annotations of the function that receives them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails, SchemaError

_LONGEST_SHOWN = 100
"""Characters of a value that a message shows, at most."""


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the evaluated annotations of a function's or a constructor's arguments.

    Annotations that can't be evaluated, such as names imported for type checkers only, are left out and not checked.
    """
    function: Any = target
    if inspect.isclass(target):
        function = target.__new__ if target.__init__ is object.__init__ else target.__init__
    function = inspect.unwrap(function)
    names = getattr(function, "__globals__", {})
    evaluated: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone: Any = SimpleNamespace(__annotations__={name: annotation})
        with suppress(Exception):
            evaluated |= get_type_hints(alone, names, include_extras=True)
    return evaluated


def validated(value: Any, annotation: Any) -> Any:
    """Return ``value`` converted to ``annotation``, e.g. a list to a tuple or a string to a path.

    Raises:
        ValueError: If it is not allowed. The message is the end of a line that starts with the key.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        _refuse_plain(value, annotation)
        return value
    try:
        result = adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(_message(error, value)) from None
    if isinstance(value, Mapping) and isinstance(result, Mapping):
        for name, item in value.items():
            if reason := _changed_kind(item, result.get(name, item)):
                raise ValueError(f".{name}: {_shown(item)} is not allowed: {reason}")
    elif reason := _changed_kind(value, result):
        raise ValueError(f": {_shown(value)} is not allowed: {reason}")
    return value if isinstance(result, Iterator) else result  # for Iterable, pydantic returns a one-way iterator


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # its metadata can't be hashed
        return _cached_adapter.__wrapped__(annotation)


@lru_cache(maxsize=1024)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    except PydanticUserError:  # a dataclass with settings of its own, or a type that pydantic can't check
        with suppress(PydanticUserError, SchemaError):
            return TypeAdapter(annotation)
    except SchemaError:  # a Protocol that isinstance() refuses
        pass
    return None


def _refuse_plain(value: object, annotation: Any) -> None:
    """Refuse a plain value for a Protocol, which can't be checked further: no plain value has its methods."""
    protocols = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if not all(one is NoneType or getattr(one, "_is_protocol", False) for one in protocols):
        return
    if value is None and NoneType in protocols:
        return
    if value is None or isinstance(value, bool | int | float | str | list | Mapping):
        names = " or ".join(one.__name__ for one in protocols if one is not NoneType)
        raise ValueError(f": {_shown(value)} is not allowed: must {component(names)}")


def component(name: str) -> str:
    """Return the end of a message that asks for a component of a class."""
    return f"be a {name}, as a mapping with its _target_"


def _changed_kind(value: object, result: object) -> str | None:
    """Return what is wrong if a value changed its type: pydantic accepts true as 1 and '12' as 12."""
    if isinstance(value, list) and isinstance(result, list | tuple):
        return next(filter(None, map(_changed_kind, value, result)), None)
    if isinstance(value, Mapping) and isinstance(result, Mapping):
        return next(filter(None, (_changed_kind(item, result.get(name, item)) for name, item in value.items())), None)
    if isinstance(result, bool):
        return None if isinstance(value, bool) else "must be true or false"
    if isinstance(result, int | float) and isinstance(value, bool):
        return "must be a number, not true or false"
    if isinstance(result, int | float) and isinstance(value, str):
        return "must be a number, not text in quotes"
    return None


def _message(error: ValidationError, value: object) -> str:
    details = error.errors(include_url=False)
    # Prefer members of a union whose type is right and whose number, length or item is wrong.
    meant = [detail for detail in details if detail["type"] not in _KINDS or _index(detail) is not None] or details
    (key, *deeper) = meant[0]["loc"] or (None,)
    if isinstance(value, Mapping) and key in value and not deeper:  # a wrong key itself has the location (key, "[key]")
        meant = [detail for detail in meant if detail["loc"] == (key,)]
        where, value = f".{key}", value[key]
    else:
        places = {_index(detail) for detail in meant}
        place = places.pop() if len(places) == 1 and isinstance(value, list) else None
        where = "" if place is None else f"[{place}]"
    reasons = list(dict.fromkeys(map(_reason, meant)))
    wanted = " or ".join([reasons[0], *(reason.removeprefix("be ") for reason in reasons[1:])])
    return f"{where}: {_shown(value)} is not allowed: must {wanted}"


def _index(detail: ErrorDetails) -> int | None:
    """Return the index of the wrong item of a list; None if the list as a whole is wrong."""
    if detail["type"] in ("missing", "too_short", "too_long"):
        return None
    return next((place for place in detail["loc"] if isinstance(place, int)), None)


_KINDS = {
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "bool_type": "be true or false",
    "bool_parsing": "be true or false",
    "string_type": "be text",
    "path_type": "be a path",
    "none_required": "be null",
    "list_type": "be a list",
    "tuple_type": "be a list",
    "sequence_str": "be a list",
    "iterable_type": "be a list",
    "dict_type": "be a mapping",
    "mapping_type": "be a mapping",
    "callable_type": "be a function",
    "literal_error": "be {expected}",
    "dataclass_type": "be a {class_name}, as a mapping with its _target_",
    "is_instance_of": "be a {class}, as a mapping with its _target_",
}
"""The type that is needed, by pydantic's name of the error."""
_REASONS = {
    **_KINDS,
    "finite_number": "be finite",
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be below {lt}",
    "less_than_equal": "be at most {le}",
    "multiple_of": "be a multiple of {multiple_of}",
    "missing": "have more items",
    "too_short": "have at least {min_length} items",
    "too_long": "have at most {max_length} items",
    "string_too_short": "have at least {min_length} characters",
    "string_too_long": "have at most {max_length} characters",
}


def _reason(detail: ErrorDetails) -> str:
    """Return the requirement, as it follows the word "must"."""
    context = {
        name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in detail.get("ctx", {}).items()
    }
    if context.get("class") == "Sequence":
        return "be a list"
    if context.get("min_length") == 1:
        return "not be empty"
    if detail["type"] in _REASONS:
        return _REASONS[detail["type"]].format(**context)
    return detail["msg"].removeprefix("Value error, ").removeprefix("must ").replace("Input should be", "be")


def _shown(value: object) -> str:
    if value is not None and not isinstance(value, str | int | float | list | dict):
        return f"a {type(value).__qualname__}"
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]} ..."
