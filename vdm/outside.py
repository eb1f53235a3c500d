"""Safe reading of untrusted JSON and YAML as plain values, without running code or exhausting memory.

All configurations that come with weights or data pass through here. Files are regular and of bounded size, nesting has
a bounded depth, YAML may have neither tags nor anchors, and ``typed`` checks keys, types and ranges.
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
"""Size limit of a JSON or YAML file; the largest known ones, indices of sharded weights, have a tenth of it."""
MAX_DEPTH = 40
"""Depth limit of nested lists and mappings."""

Value = TypeVar("Value")


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a regular file of bounded size, without its byte-order mark.

    Raises:
        ValueError: In one line, if it is missing, too large, no regular file or not UTF-8.
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


def read_json(path: Path, max_bytes: int = MAX_BYTES, allow_infinity: bool = False) -> dict[str, Any]:
    """Return the object in a JSON file; ``allow_infinity`` as in ``parse_object``.

    Raises:
        ValueError: In one line, if the file is missing or its content is something else.
    """
    return parse_object(read_text(path, max_bytes), path, allow_infinity)


def parse_object(text: str, source: object, allow_infinity: bool = False) -> dict[str, Any]:
    """Return the JSON object in a text, whose length the caller must bound.

    Args:
        text: The text.
        source: Its origin, for messages.
        allow_infinity: Read ``Infinity`` and ``NaN``, which are not JSON, but which Python writes.

    Raises:
        ValueError: In one line that begins with ``source``, if the text is something else.
    """
    try:
        content = json.loads(text, parse_constant=float if allow_infinity else _refuse_constant)
        _check_depth(content)
    except MALFORMED as error:
        raise ValueError(f"{source}: can't be read as JSON: {_joined(error)}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{source}: holds no JSON object")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, as OmegaConf reads it, except that interpolations stay text.

    Raises:
        ValueError: In one line, if the file is missing or its content is something else.
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
    """Return YAML that ``read_yaml`` and OmegaConf read back as ``content``."""
    return yaml.dump(dict(content), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def typed(cls: type[Value], values: Mapping[str, Any], source: object) -> Value:
    """Return ``values`` as ``cls``, a dataclass or a TypedDict; unknown keys are left out.

    Args:
        cls: Its annotations define the allowed values.
        values: Plain values, as ``read_json`` and ``read_yaml`` return them.
        source: Their origin, for messages.

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
    """Return the part of pydantic's path that exists in ``values``; the rest names alternatives of types."""
    if not path:
        return ()
    try:
        return (path[0], *_path_in(values[path[0]], path[1:]))
    except (LookupError, TypeError):  # no such key, or no container
        return ()


class _PlainLoader(yaml.CSafeLoader):
    """Reads numbers as OmegaConf does and dates as text, and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise ValueError(f"the key {name!r} is not a text")
        if len(set(names)) < len(names):
            raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Writes no aliases, and quotes text that ``_PlainLoader`` and OmegaConf would read as another type."""

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
"""Floats of YAML 1.2, including 1e-4, which PyYAML reads as text."""
for _class in (_PlainLoader, _PlainDumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _check_events(text: str) -> None:
    """Refuse anchors, aliases, tags and deep nesting before values are constructed."""
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
