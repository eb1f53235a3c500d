"""Values checked against the annotations of the function that is to receive them."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the evaluated annotations of a function's or a constructor's arguments.

    One that can't be evaluated, as a name imported for type checkers only, is left out: it won't be checked.
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
    """Return ``value`` as ``annotation`` wants it, e.g. a tuple for a list or a path for a string.

    Raises:
        ValueError: The end of a message that starts with the key.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return value
    try:
        result = adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(_reason(error, value)) from None
    if not _same_kind(value, result):
        raise ValueError(f": {_shown(value)} is not allowed: Input should be {_name(annotation)}")
    return value if isinstance(result, Iterator) else result  # for Iterable, pydantic returns a one-way iterator


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    except PydanticUserError:  # a dataclass, which brings its own settings, or a type that pydantic can't check
        with suppress(PydanticUserError, SchemaError):
            return TypeAdapter(annotation)
    except SchemaError:  # a Protocol that isinstance() refuses
        pass
    return None


def _same_kind(value: object, result: object) -> bool:
    """Tell whether no leaf changed its kind: pydantic takes true for 1 and '12' for 12, which in YAML is a mistake."""
    if isinstance(value, list) and isinstance(result, list | tuple):
        return all(map(_same_kind, value, result))
    if isinstance(value, Mapping) and isinstance(result, Mapping):
        return all(_same_kind(item, result.get(name, item)) for name, item in value.items())
    if isinstance(value, bool) or isinstance(result, bool):
        return type(value) is type(result)
    return not (isinstance(value, str) and isinstance(result, int | float))


def _reason(error: ValidationError, value: object) -> str:
    details = error.errors(include_url=False, include_context=False)
    places = {detail["loc"][:1] for detail in details}
    place = places.pop() if len(places) == 1 else ()
    index = f"[{place[0]}]" if place and isinstance(place[0], int) else ""
    messages = dict.fromkeys(detail["msg"] for detail in details)
    return f"{index}: {_shown(value)} is not allowed: {' or '.join(messages)}"


def _shown(value: object) -> str:
    is_plain = value is None or isinstance(value, str | int | float | list | dict)
    return textwrap.shorten(repr(value), 100) if is_plain else f"a {type(value).__qualname__}"


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation)) if inspect.isclass(annotation) else str(annotation)
