"""Every key of every component of conf/ has a type and a range, and no value outside of them is let through.

What a key may hold is read off its annotation by a second, plainer reading than pydantic's: where a value that looks
wrong is let through, the annotation says so.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Interval, Le, Len, Lt
from pydantic.fields import FieldInfo

from tests.config.components import TARGETS
from vdm.config import ConfigError, check
from vdm.config.static_signatures import read_signature
from vdm.ranges import Instead

GIVEN_IN_CODE = {
    "vdm.models.pretrained.lora_files.comfyui_tensors": {"additions"},
    "vdm.models.pretrained.modelscope.write_folder": {"trained"},
    "vdm.models.pretrained.svd.write_folder": {"trained"},
    "vdm.models.pretrained.wan.write_folder": {"trained"},
    "hydra_plugins.vdm.SlurmLauncher": {"options"},
}
"""Keys that no YAML holds, or that another check sees to."""
VALUES: list[Any] = [
    *("word", "", "12", "1.5", "true", "a\nb", "x" * 200_000),
    *(True, False, None),
    *(-1, 0, 1, 10**9, 10**18, -(10**18)),
    *(-1.5, -0.5, 0.5, 1.5, 1e300, -1e300, math.nan, math.inf, -math.inf),
    *([], [1], [-1], [0.5], [2, 2], [1, "x"], [True, True], [None], [[1, 2]], [[]], [1] * 20),
    *({}, {"a": 1}, {"a": -1}, {"a": {}}, {"x" * 5000: 1}),
]


def _alternatives(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield the members of a union, each with what is said about it."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(annotation.__origin__, (*annotation.__metadata__, *metadata))
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member, metadata)
    else:
        yield annotation, metadata


def _bounds(metadata: tuple[Any, ...]) -> Iterator[Any]:
    for one in metadata:
        yield from (bound for bound in one if bound is not None) if isinstance(one, Interval) else (one,)


def _is_within(number: float, metadata: tuple[Any, ...]) -> bool:
    if not math.isfinite(number) and not any(isinstance(one, FieldInfo) for one in metadata):
        return False
    tests: dict[type, Callable[[Any], bool]] = {
        Ge: lambda bound: number >= bound.ge,
        Gt: lambda bound: number > bound.gt,
        Le: lambda bound: number <= bound.le,
        Lt: lambda bound: number < bound.lt,
    }
    return all(tests[type(bound)](bound) for bound in _bounds(metadata) if type(bound) in tests)


def _has_length(items: Any, metadata: tuple[Any, ...]) -> bool:
    return all(one.min_length <= len(items) <= one.max_length for one in metadata if isinstance(one, Len))


def _passes(value: Any, metadata: tuple[Any, ...]) -> bool:
    """Ask the functions among the metadata."""
    for one in metadata:
        if hasattr(one, "func"):
            try:
                one.func(value)
            except ValueError:
                return False
    return True


def _may_be(value: Any, annotation: Any) -> bool:
    return any(_may_be_one(value, kind, metadata) for kind, metadata in _alternatives(annotation))


def _may_be_one(value: Any, kind: Any, metadata: tuple[Any, ...]) -> bool:
    if any(isinstance(one, Instead) for one in metadata):
        return False
    if kind in (None, NoneType):
        return value is None
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_whole = is_number and math.isfinite(value) and value == int(value)
        return is_number and (kind is float or is_whole) and _is_within(value, metadata)
    if kind in (str, Path):
        return isinstance(value, str) and _has_length(value, metadata) and _passes(value, metadata)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        is_fitting = isinstance(value, dict) and _has_length(value, metadata)
        return is_fitting and all(_may_be(k, arguments[0]) and _may_be(v, arguments[1]) for k, v in value.items())
    if origin is tuple and arguments[-1] is not ...:
        is_fitting = isinstance(value, list) and len(value) == len(arguments)
        return is_fitting and all(map(_may_be, value, arguments))
    if origin is not None:
        is_fitting = isinstance(value, list) and _has_length(value, metadata)
        return is_fitting and all(_may_be(item, arguments[0]) for item in value)
    return isinstance(value, dict)  # a component, of which more is checked when it is built


def _keys(path: str) -> dict[str, Any]:
    signature = read_signature(path)
    assert signature is not None
    return {key: value for key, value in signature.annotations.items() if key not in GIVEN_IN_CODE.get(path, ())}


@pytest.mark.parametrize("path", sorted(TARGETS))
def test_no_wrong_value_is_let_through(path: str) -> None:
    for key, annotation in _keys(path).items():
        too_long = [["a"] * (limit + 1) for limit in _limits(annotation)]
        for value in (*VALUES, *too_long):
            message = None
            try:
                check({"_target_": path, key: value}, "part")
            except ConfigError as error:
                message = str(error)

            shown = f"{path}: {key}={value!r:.80}: {message}"
            assert (message is None) == _may_be(value, annotation), shown
            if message is not None:
                assert message.startswith(f"part.{key}"), shown
                assert " is not allowed: must " in message, shown
                assert "\n" not in message, shown
                assert len(message) < 500, shown


def _limits(annotation: Any) -> list[int]:
    """Return how many items a list may have."""
    metadata = [one for kind, said in _alternatives(annotation) for one in said if kind is not str]
    return [one.max_length for one in metadata if isinstance(one, Len) and one.max_length is not None]


def _unbounded(annotation: Any) -> Iterator[str]:
    """Yield what an annotation leaves open."""
    for kind, metadata in _alternatives(annotation):
        bounds = {type(bound) for bound in _bounds(metadata)}
        if kind in (int, float) and not (bounds & {Ge, Gt} and (bounds & {Le, Lt, FieldInfo})):
            yield f"a bare {kind.__name__}"
        if kind is str and not (bounds & {Len} or any(hasattr(one, "func") for one in metadata)):
            yield "a bare str; Text, Name or Location of vdm.ranges say what it is"
        if kind in (Any, object) or kind is inspect.Parameter.empty:
            yield "anything"
        arguments = [one for one in get_args(kind) if one is not ...] if get_origin(kind) is not Literal else []
        if arguments and get_origin(kind) is not tuple and not bounds & {Len}:
            yield "a list or mapping of any length"
        for argument in arguments:
            yield from _unbounded(argument)


@pytest.mark.parametrize("path", sorted(TARGETS))
def test_every_key_is_bounded(path: str) -> None:
    open_keys = {key: list(_unbounded(annotation)) for key, annotation in _keys(path).items()}

    assert {key: what for key, what in open_keys.items() if what} == {}


@pytest.mark.parametrize("annotation", [int, float, str, Annotated[int, Ge(0)], list[bool], dict[str, bool], Any])
def test_bare_annotations_count_as_unbounded(annotation: Any) -> None:
    assert list(_unbounded(annotation | None if annotation is not Any else Any))
