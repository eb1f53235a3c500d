"""Targets: the classes and functions that ``_target_`` names, which of them may be imported, and where they occur."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeGuard

from vdm.config.errors import ConfigError, nearest
from vdm.config.moved import MOVED_TARGETS

Target = Callable[..., Any]

OWN_CODE = "; allow_own_code=true allows code from elsewhere, and runs it: only for those whom you trust"
"""The end of a message that refuses an import."""


def resolve(path: object, key: str, allowed_modules: Sequence[str] | None) -> Target:
    """Import the class or function of a dotted path.

    Args:
        path: Such as ``package.module.Class``.
        key: Dotted key of ``path`` in the configuration, for messages.
        allowed_modules: See ``vdm.config.build``.

    Raises:
        ConfigError: If the path names nothing, something that can't be called, or something that is not allowed.
    """
    if not is_dotted(path):
        raise ConfigError(f"{key}: {path!r} is not allowed: it is a dotted path such as package.module.Class")
    _refuse_former(path, key)
    if allowed_modules is not None and not _lies_in(path, allowed_modules):  # before the import, which runs code
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
        raise ConfigError(f"{key}: {path!r} is not allowed: it is an interface; choose a class that implements it")
    if allowed_modules is not None and not _lies_in(getattr(found, "__module__", None) or "", allowed_modules):
        outside = f"it is defined outside of {', '.join(allowed_modules)}"
        raise ConfigError(f"{key}: {path!r} is not allowed: {outside}{OWN_CODE}")
    if allowed_modules is not None and not _is_harmless(path, found):
        raise ConfigError(f"{key}: {path!r} is not allowed: it is no public class")
    return found


def targets_in(node: Any, key: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield every node that has a target, with its dotted key; inner nodes come before those around them."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from targets_in(value, f"{key}.{name}" if key else str(name))
        if "_target_" in node:
            _refuse_former(node["_target_"], f"{key}._target_")
            yield node, key
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets_in(value, f"{key}[{index}]")


def holds_target(value: Any) -> bool:
    """Tell whether a value is a node with ``_target_`` or contains one."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(holds_target, value.values()))
    return isinstance(value, list) and any(map(holds_target, value))


def is_dotted(path: object) -> TypeGuard[str]:
    """Tell whether ``path`` is a text such as ``package.module.Class``."""
    return isinstance(path, str) and "." in path and all(part.isidentifier() for part in path.split("."))


def _refuse_former(path: object, key: str) -> None:
    """Refuse a former name in a user's YAML; in recorded configurations it has been translated."""
    if isinstance(path, str) and path in MOVED_TARGETS:
        present = MOVED_TARGETS[path]
        raise ConfigError(f"{key}: {path} is {f'called {present}' if present else 'to be left out'} now")


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
