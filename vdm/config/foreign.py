"""Check of configurations that came with weights from elsewhere, before anything is built from them."""

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vdm.config.annotations import annotations_of
from vdm.config.components import check
from vdm.config.errors import ConfigError
from vdm.config.targets import holds_target, resolve

_PLAIN = (bool, int, float, str, Path, type(None))
_CONTAINERS = (list, tuple, dict, Sequence, Mapping)


def check_foreign(node: Any, key: str, allowed_modules: Sequence[str]) -> None:
    """Refuse a node that is not safe to build, or wrong.

    Each ``_target_`` must be a public class of ``allowed_modules``. A nested one may stand only where the class around
    it takes objects. Interpolations are refused. Keys and values must be allowed by the annotations of the classes.

    Args:
        node: Plain values.
        key: Dotted key of ``node`` in the configuration, for messages.
        allowed_modules: Packages and modules from which targets may come; see ``vdm.config.build``.

    Raises:
        ConfigError: In one line that names the key.
    """
    _check_node(node, key, allowed_modules)
    check(node, key)


def _check_node(node: Any, key: str, allowed_modules: Sequence[str]) -> None:
    if isinstance(node, str) and "${" in node:
        raise ConfigError(f"{key}: {node!r} is not allowed: a run records values, no interpolations")
    if isinstance(node, list):
        for index, value in enumerate(node):
            _check_node(value, f"{key}[{index}]", allowed_modules)
    if not isinstance(node, Mapping):
        return
    if "_partial_" in node:
        raise ConfigError(f"{key}._partial_: is not allowed in a configuration from elsewhere")
    annotations: Mapping[str, Any] = {}
    if "_target_" in node:
        annotations = annotations_of(resolve(node["_target_"], f"{key}._target_", allowed_modules))
    for name, value in node.items():
        if "${" in str(name):
            raise ConfigError(f"{key}: the key {name!r} is not allowed: a run records values, no interpolations")
        if isinstance(value, Mapping | list) and name in annotations and not _fits(value, annotations[name]):
            raise ConfigError(f"{key}.{name}: {value!r} is not allowed: it is a plain value")
        if name != "_target_":
            _check_node(value, f"{key}.{name}", allowed_modules)


def _fits(value: Any, annotation: Any) -> bool:
    """Tell whether ``value`` contains no objects, or the annotation allows them."""
    return not (holds_target(value) and is_plain(annotation))


def is_plain(annotation: Any) -> bool:
    """Tell whether an annotation allows only numbers, texts, paths and containers of them."""
    if annotation in _PLAIN or annotation is None or annotation is Ellipsis:
        return True
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return is_plain(get_args(annotation)[0])
    if origin in (Union, types.UnionType, *_CONTAINERS):
        return all(map(is_plain, get_args(annotation)))
    return False
