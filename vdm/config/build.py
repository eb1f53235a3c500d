"""From plain containers with ``_target_`` keys to validated, built components.

A node is a mapping such as ``{"_target_": "package.module.Class", "width": 64}``. Its keys are bound to the target's
signature and their values checked against its annotations, so that a mistake in a YAML is one line that starts with the
dotted key: ``model.network.width: 'wide' is not allowed: must be a whole number``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import NoneType
from typing import Any, TypeGuard, get_args, get_type_hints

from vdm.config.annotations import validated
from vdm.config.errors import ConfigError, did_you_mean, nearest
from vdm.config.moved import MOVED_TARGETS
from vdm.config.signatures import Signature, signature_of
from vdm.config.static_signatures import read_signature

Target = Callable[..., Any]

_RESERVED = ("_target_", "_partial_")
OWN_CODE = "; allow_own_code=true allows code from elsewhere, and runs it: only for those whom you trust"
"""The end of a message about what may not be imported."""


def build(
    node: Any,
    key: str,
    allowed_modules: Sequence[str] | None = None,
    offered: Mapping[str, Any] | None = None,
    **given: Any,
) -> Any:
    """Build what ``node`` describes: nested nodes first, in mappings and lists too.

    Args:
        node: A node with ``_target_``, or any plain value. ``_partial_: true`` makes a ``functools.partial``, whose
            other arguments need not be there yet.
        key: Dotted key of ``node`` in the configuration, for messages.
        allowed_modules: Packages and modules from which targets of nodes from outside may come; what a target resolves
            to must be defined in one of them, however it is reached, and be a public class, or a function that takes
            nothing: other functions may be told to do harm, such as writing a file. ``None`` allows all.
        offered: Arguments for the outermost target that it gets if it takes them and the YAML does not say otherwise.
        given: Arguments for the outermost target that no YAML can hold.

    Raises:
        ConfigError: If a target can't be imported or is not allowed, a key is unknown or missing, a value is not what
            its annotation asks for, or a constructor raises ``ValueError``, ``OSError`` or ``ImportError``, or finds no
            memory.
    """
    if isinstance(node, Mapping) and "_target_" in node:
        return _build_target(node, key, allowed_modules, offered or {}, given)
    assert not given, f"{key} has no _target_ to give {', '.join(given)} to"
    if isinstance(node, Mapping):
        return {name: build(value, f"{key}.{name}", allowed_modules) for name, value in node.items()}
    if isinstance(node, list):
        return [build(value, f"{key}[{index}]", allowed_modules) for index, value in enumerate(node)]
    return node


def check(node: Any, key: str = "") -> None:
    """Check what can be checked of ``node`` without building anything: targets, names of keys and plain values.

    Classes of this project are read, not imported. Others, such as a user's own, are imported when all else is right.

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
                _check_target(target, parameters or _Parameters.of(_resolve_of(target, place), place))


def targets_in(node: Any, key: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield all nodes with a target, the innermost first, and their keys."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from targets_in(value, f"{key}.{name}" if key else str(name))
        if "_target_" in node:
            _refuse_former(node["_target_"], f"{key}._target_")
            yield node, key
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets_in(value, f"{key}[{index}]")


def _resolve_of(node: Mapping[str, Any], key: str) -> Target:
    return resolve(node["_target_"], f"{key}._target_", None)


def _check_target(node: Mapping[str, Any], parameters: _Parameters) -> None:
    _is_partial(node, parameters.key)
    arguments = _arguments(node)
    parameters.check_names(arguments, given=(), is_partial=True)
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


def holds_target(value: Any) -> bool:
    """Tell whether a value is a node with ``_target_``, or has one anywhere in it."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(holds_target, value.values()))
    return isinstance(value, list) and any(map(holds_target, value))


def _build_target(
    node: Mapping[str, Any],
    key: str,
    allowed_modules: Sequence[str] | None,
    offered: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Any:
    target = resolve(node["_target_"], f"{key}._target_", allowed_modules)
    is_partial = _is_partial(node, key)
    parameters = _Parameters.of(target, key)
    arguments = _arguments(node)
    taken = {name: value for name, value in offered.items() if name in parameters.signature.named and name not in node}
    given = {**taken, **given}
    parameters.check_names(arguments, given, is_partial)
    built = {
        name: parameters.check_value(name, build(value, f"{key}.{name}", allowed_modules))
        for name, value in arguments.items()
        if name not in given
    }
    if is_partial:
        return functools.partial(target, **built, **given)
    try:
        result = target(**built, **given)
    except ConfigError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch's ways to say it
            raise
        raise ConfigError(f"{key}: takes more memory than there is; choose smaller sizes") from error
    if result is None and not _may_return_none(target):
        raise ConfigError(f"{key}: {node['_target_']} returned nothing; it must return what it makes")
    return result


def _may_return_none(target: Target) -> bool:
    """Tell whether a function says that it may return None."""
    try:
        hint = get_type_hints(target).get("return")
    except (NameError, TypeError, AttributeError):  # a name that is there for type checkers alone, or no function
        return False
    return hint is NoneType or NoneType in get_args(hint)


@dataclass(frozen=True)
class _Parameters:
    """What a target can be called with by name."""

    key: str
    signature: Signature

    @staticmethod
    def of(target: Target, key: str) -> _Parameters:
        try:
            return _Parameters(key, signature_of(target))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key}._target_: what {target!r} takes is not known to Python") from error

    @staticmethod
    def read(path: object, key: str) -> _Parameters | None:
        """Read what a target of this project takes, without importing it; None for another."""
        if not _is_dotted(path):
            return None
        try:
            signature = read_signature(path)
        except LookupError as error:
            name, known = error.args
            public = [one for one in known if not one.startswith("_")]
            raise ConfigError(f"{key}._target_: {path!r}: it has no '{name}'{nearest(name, public)}") from error
        return None if signature is None else _Parameters(key, signature)

    def check_names(self, arguments: Iterable[str], given: Iterable[str], is_partial: bool) -> None:
        """Refuse names that the target does not take, and the lack of those that it needs."""
        for name in arguments:
            if name not in self.signature.named and not self.signature.takes_any:
                raise ConfigError(
                    f"{self.key}.{name}: unknown key{did_you_mean(str(name), self.signature.choices, self.key)}"
                )
        needed = {name for name, is_needed in self.signature.named.items() if is_needed}
        missing = sorted(needed - set(arguments) - set(given))
        if missing and not is_partial:
            raise ConfigError(f"{', '.join(f'{self.key}.{name}' for name in missing)}: no value given")

    def check_value(self, name: str, value: Any) -> Any:
        """Return ``value`` as the annotation wants it: a tuple for a list, a path for a string."""
        if name not in self.signature.annotations:
            return value
        try:
            return validated(value, self.signature.annotations[name])
        except ValueError as error:
            raise ConfigError(f"{self.key}.{name}{error}") from error


def _is_dotted(path: object) -> TypeGuard[str]:
    return isinstance(path, str) and "." in path and all(part.isidentifier() for part in path.split("."))


def _refuse_former(path: object, key: str) -> None:
    """Refuse what has another name now, in a YAML that somebody wrote: recorded configurations are translated."""
    if isinstance(path, str) and path in MOVED_TARGETS:
        present = MOVED_TARGETS[path]
        raise ConfigError(f"{key}: {path} is {f'called {present}' if present else 'to be left out'} now")


def resolve(path: object, key: str, allowed_modules: Sequence[str] | None) -> Target:
    """Import what a dotted path names; see ``build`` for ``allowed_modules``.

    Raises:
        ConfigError: If nothing has that name, what has it can't be called, or it is not allowed.
    """
    if not _is_dotted(path):
        raise ConfigError(f"{key}: {path!r} is not allowed: it is a dotted path such as package.module.Class")
    _refuse_former(path, key)
    if allowed_modules is not None and not _lies_in(
        path, allowed_modules
    ):  # importing runs code: first ask, then import
        raise ConfigError(f"{key}: {path!r} is not allowed: it must lie in {', '.join(allowed_modules)}{OWN_CODE}")
    module, attributes = _import_longest(path, key)
    found: Any = module
    for attribute in attributes:
        if not hasattr(found, attribute):
            names = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
            raise ConfigError(f"{key}: {path!r}: it has no '{attribute}'{nearest(attribute, names)}")
        found = getattr(found, attribute)
    if not callable(found):
        raise ConfigError(f"{key}: {path!r} is not allowed: it is neither a class nor a function")
    if inspect.isabstract(found) or getattr(found, "_is_protocol", False):
        raise ConfigError(f"{key}: {path!r} is not allowed: it says what classes of its kind have, and is none itself")
    if allowed_modules is not None and not _lies_in(getattr(found, "__module__", None) or "", allowed_modules):
        outside = f"it is defined outside of {', '.join(allowed_modules)}"
        raise ConfigError(f"{key}: {path!r} is not allowed: {outside}{OWN_CODE}")
    if allowed_modules is not None and not _is_harmless(path, found):
        raise ConfigError(f"{key}: {path!r} is not allowed: it is no public class")
    return found


def _is_harmless(path: str, found: Target) -> bool:
    is_public = not any(part.startswith("_") for part in path.split("."))
    return is_public and (inspect.isclass(found) or not inspect.signature(found).parameters)


def _import_longest(path: str, key: str) -> tuple[Any, list[str]]:
    """Import the longest part of ``path`` that is a module, and return it with the rest of the path."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            return import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # exists, and imports what does not
                raise ConfigError(
                    f"{key}: {path!r} needs the package '{error.name}', which is not installed"
                ) from error
        except ImportError as error:
            raise ConfigError(f"{key}: {path!r} can't be imported: {' '.join(str(error).split())}") from error
    raise ConfigError(f"{key}: {path!r}: there is no module '{parts[0]}'")


def _lies_in(path: str, modules: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{module}.") for module in modules)
