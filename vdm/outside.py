"""What comes from outside, read as plain values: JSON and YAML that can neither run code nor exhaust the machine.

All configurations that come with weights or data pass through here. Files are regular and of bounded size, nesting has
a bounded depth, YAML has neither tags nor anchors, and ``typed`` holds what was read to known keys, types and ranges.
"""

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from vdm.files import MALFORMED
from vdm.regular_files import read_limited

MAX_BYTES = 4 * 2**20
"""Of one JSON or YAML file; the longest that are known, indices of sharded weights, have a tenth of it."""
MAX_DEPTH = 40
"""Of lists and mappings inside of each other."""

Value = TypeVar("Value")


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the content of a file that is regular and not too long; a byte-order mark is left out.

    Raises:
        ValueError: In one line, if there is no such file, or it is something else.
    """
    try:
        content = read_limited(path, max_bytes)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: In one line, if there is no such file, or something else in it.
    """
    return parse_object(read_text(path, max_bytes), path)


def parse_object(text: str, source: object) -> dict[str, Any]:
    """Return the JSON object that a text is; whoever calls this bounds its length.

    Raises:
        ValueError: In one line that begins with ``source``, if it is something else.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        _check_depth(content)
    except MALFORMED as error:
        raise ValueError(f"{source}: can't be read as JSON: {_joined(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{source}: holds no JSON object")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, as OmegaConf reads it but for interpolations, which stay texts.

    Raises:
        ValueError: In one line, if there is no such file, or something else in it.
    """
    text = read_text(path)
    try:
        _check_events(text)
        content = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, *MALFORMED) as error:
        raise ValueError(f"{path}: can't be read: {_joined(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a configuration")
    return content


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return plain values as YAML that ``read_yaml`` and OmegaConf read as the same values."""
    return yaml.dump(dict(content), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def typed(cls: type[Value], values: Mapping[str, Any], source: object) -> Value:
    """Return what ``cls``, a dataclass or a TypedDict, knows of ``values``; keys that it does not know are left out.

    Args:
        cls: Its annotations say what is allowed.
        values: Plain values, as ``read_json`` and ``read_yaml`` return them.
        source: Where they come from, for messages.

    Raises:
        ValueError: In one line that names source, key, value and what is allowed.
    """
    try:
        # Strict as JSON is: a list will do for a tuple and 1 for 1.0, but neither true nor '1' for 1.
        return TypeAdapter(cls).validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "missing":
            raise ValueError(f"{source}: {'.'.join(map(str, first['loc']))} is missing") from None
        key = ".".join(map(str, _path_in(values, first["loc"])))
        shown = textwrap.shorten(repr(first["input"]), 100)
        raise ValueError(f"{source}: {key}={shown} is not allowed: {first['msg']}") from None


def _path_in(values: Any, path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the part of pydantic's path that leads through ``values``: it goes on into alternatives of types."""
    if not path:
        return ()
    try:
        return (path[0], *_path_in(values[path[0]], path[1:]))
    except (LookupError, TypeError):  # no such place, or nothing that has places
        return ()


class _PlainLoader(yaml.CSafeLoader):
    """Reads numbers as OmegaConf does, dates as texts, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise ValueError(f"the key {name!r} is not a text")
        if len(set(names)) < len(names):
            raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Writes each value in full, and in quotes what ``_PlainLoader`` and OmegaConf would take for another kind."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_FLOAT = re.compile(
    r"""[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?$
    |[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+$
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)?$
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*$
    |[-+]?\.(?:inf|Inf|INF)$
    |\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
"""YAML 1.2's numbers, with 1e-4 among them, which PyYAML takes for a text."""
for _class in (_PlainLoader, _PlainDumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _check_events(text: str) -> None:
    """Refuse YAML that means more than it says, before anything is made of it."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not read")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"the tag {event.tag} is not read")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} levels deep")


def _check_depth(node: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _check_depth(value, depth + 1)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _joined(error: BaseException) -> str:
    return " ".join(str(error).split())
