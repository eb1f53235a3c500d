"""Keyword parameters of a class or function."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vdm.config.annotations import annotations_of
from vdm.ranges import Instead


@dataclass(frozen=True)
class Signature:
    """Keyword parameters of a class or function."""

    named: Mapping[str, bool]
    """Parameters by name, and whether each is required."""
    annotations: Mapping[str, Any]
    """Annotations by name, as far as they can be evaluated."""
    takes_any: bool = False
    """Whether it has ``**kwargs``."""

    @property
    def choices(self) -> list[str]:
        """Names that a user may set: without those that exist only to be refused with advice."""
        return [name for name in self.named if not _is_refused(self.annotations.get(name))]


def signature_of(target: Callable[..., Any]) -> Signature:
    """Return the signature of a target that has been imported.

    Raises:
        ValueError: If Python has no signature of it.
        TypeError: Likewise.
    """
    parameters = inspect.signature(target).parameters.values()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return Signature(
        named={p.name: p.default is inspect.Parameter.empty for p in parameters if p.kind in by_name},
        annotations=annotations_of(target),
        takes_any=any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
    )


def _is_refused(annotation: Any) -> bool:
    return any(isinstance(one, Instead) for one in getattr(annotation, "__metadata__", ()))
