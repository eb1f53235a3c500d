"""Components, checked and built from plain containers with ``_target_`` keys.

A node is a mapping such as ``{"_target_": "package.module.Class", "width": 64}``. Its keys are bound to the target's
signature and their values checked against its annotations, so that a mistake in a YAML is one line that starts with the
dotted key: ``model.network.width: 'wide' is not allowed: must be a whole number``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from vdm.config.annotations import validated
from vdm.config.errors import ConfigError, did_you_mean, nearest
from vdm.config.signatures import Signature, signature_of
from vdm.config.static_signatures import read_signature
from vdm.config.targets import Target, holds_target, is_dotted, resolve, targets_in

_RESERVED = ("_target_", "_partial_")


def build(
    node: Any,
    key: str,
    allowed_modules: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    **objects: Any,
) -> Any:
    """Build the component that ``node`` describes; nested nodes first, in mappings and lists too.

    Args:
        node: A node with ``_target_``, or any plain value. ``_partial_: true`` makes a ``functools.partial``, which may
            lack arguments.
        key: Dotted key of ``node`` in the configuration, for messages.
        allowed_modules: Packages and modules from which targets may come when the node is not trusted. A target must be
            defined in one of them, by whatever path it is reached, and be a public class or a function without
            parameters: other functions could be made to do harm, such as writing a file. ``None`` allows all.
        defaults: Arguments for the outermost target: each is passed if the target takes it and ``node`` lacks it.
        objects: Arguments for the outermost target that YAML can't hold, such as modules. They replace those of
            ``node``.

    Raises:
        ConfigError: If a target can't be imported or is not allowed, a key is unknown or missing, a value contradicts
            its annotation, or a constructor runs out of memory or raises ``ValueError``, ``OSError`` or
            ``ImportError``.
    """
    if isinstance(node, Mapping) and "_target_" in node:
        return _build_target(node, key, allowed_modules, defaults or {}, objects)
    assert not objects, f"{key} has no _target_ to pass {', '.join(objects)} to"
    if isinstance(node, Mapping):
        return {name: build(value, f"{key}.{name}", allowed_modules) for name, value in node.items()}
    if isinstance(node, list):
        return [build(value, f"{key}[{index}]", allowed_modules) for index, value in enumerate(node)]
    return node


def takes(node: Any, argument: str, key: str) -> bool:
    """Tell whether the outermost target of ``node`` has an argument of a name.

    Raises:
        ConfigError: If the target can't be imported.
    """
    if not (isinstance(node, Mapping) and "_target_" in node):
        return False
    return argument in _Parameters.imported(node, key).signature.named


def check(node: Any, key: str = "") -> None:
    """Check ``node`` without building anything: targets, names of keys and plain values.

    Signatures of this project's classes are read from their source, without an import. Other classes, such as a user's
    own, are imported once all the rest is right.

    Args:
        node: A node with ``_target_``, or any plain value.
        key: Dotted key of ``node`` in the configuration, for messages; empty for a whole configuration.

    Raises:
        ConfigError: As ``build`` does.
    """
    targets = list(targets_in(node, key))
    for of_project in (True, False):
        for target, place in targets:
            parameters = _Parameters.read(target["_target_"], place)
            if (parameters is not None) == of_project:
                _check_target(target, parameters or _Parameters.imported(target, place))


def _check_target(node: Mapping[str, Any], parameters: _Parameters) -> None:
    _is_partial(node, parameters.key)
    arguments = _arguments(node)
    parameters.check_names(arguments, passed=(), is_partial=True)
    for name, value in arguments.items():
        if not holds_target(value):
            parameters.check_value(name, value)


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in _RESERVED and value != "???"}


def _is_partial(node: Mapping[str, Any], key: str) -> bool:
    is_partial = node.get("_partial_", False)
    if not isinstance(is_partial, bool):
        raise ConfigError(f"{key}._partial_: {is_partial!r} is not allowed: it is true or false")
    return is_partial


def _build_target(
    node: Mapping[str, Any],
    key: str,
    allowed_modules: Sequence[str] | None,
    defaults: Mapping[str, Any],
    objects: Mapping[str, Any],
) -> Any:
    target = resolve(node["_target_"], f"{key}._target_", allowed_modules)
    is_partial = _is_partial(node, key)
    parameters = _Parameters.of(target, key)
    arguments = _arguments(node)
    taken = {name: value for name, value in defaults.items() if name in parameters.signature.named and name not in node}
    passed = {**taken, **objects}
    parameters.check_names(arguments, passed, is_partial)
    built = {
        name: parameters.check_value(name, build(value, f"{key}.{name}", allowed_modules))
        for name, value in arguments.items()
        if name not in passed
    }
    if is_partial:
        return functools.partial(target, **built, **passed)
    try:
        result = target(**built, **passed)
    except ConfigError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch raises RuntimeError for both
            raise
        raise ConfigError(f"{key}: takes more memory than there is; choose smaller sizes") from error
    if result is None and not _may_return_none(target):
        raise ConfigError(f"{key}: {node['_target_']} returned None; it must return the component")
    return result


def _may_return_none(target: Target) -> bool:
    """Tell whether a function's annotation allows it to return None."""
    try:
        hint = get_type_hints(target).get("return")
    except (NameError, TypeError, AttributeError):  # a name imported for type checkers alone, or no function
        return False
    return hint is NoneType or NoneType in get_args(hint)


@dataclass(frozen=True)
class _Parameters:
    """The keyword parameters of a target."""

    key: str
    signature: Signature

    @staticmethod
    def imported(node: Mapping[str, Any], key: str) -> _Parameters:
        return _Parameters.of(resolve(node["_target_"], f"{key}._target_", None), key)

    @staticmethod
    def of(target: Target, key: str) -> _Parameters:
        try:
            return _Parameters(key, signature_of(target))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key}._target_: {target!r} has no signature that Python can read") from error

    @staticmethod
    def read(path: object, key: str) -> _Parameters | None:
        """Read the parameters of a target of this project from its source; None for a target from elsewhere."""
        if not is_dotted(path):
            return None
        try:
            signature = read_signature(path)
        except LookupError as error:
            name, known = error.args
            public = [one for one in known if not one.startswith("_")]
            raise ConfigError(f"{key}._target_: {path!r}: it has no '{name}'{nearest(name, public)}") from error
        return None if signature is None else _Parameters(key, signature)

    def check_names(self, arguments: Iterable[str], passed: Iterable[str], is_partial: bool) -> None:
        """Refuse unknown names and missing required ones; ``passed`` are arguments from elsewhere than the YAML."""
        for name in arguments:
            if name not in self.signature.named and not self.signature.takes_any:
                raise ConfigError(
                    f"{self.key}.{name}: unknown key{did_you_mean(str(name), self.signature.choices, self.key)}"
                )
        needed = {name for name, is_needed in self.signature.named.items() if is_needed}
        missing = sorted(needed - set(arguments) - set(passed))
        if missing and not is_partial:
            raise ConfigError(f"{', '.join(f'{self.key}.{name}' for name in missing)}: no value given")

    def check_value(self, name: str, value: Any) -> Any:
        """Return ``value`` converted to its annotation: a list to a tuple, a string to a path."""
        if name not in self.signature.annotations:
            return value
        try:
            return validated(value, self.signature.annotations[name])
        except ValueError as error:
            raise ConfigError(f"{self.key}.{name}{error}") from error
