"""From the configuration of an objective to one that training and evaluation can use."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import ConfigError, build
from vdm.objectives.base import Objective


def build_objective(
    node: Mapping[str, Any], model: VideoDiffusionModel, allowed_modules: Sequence[str] | None = None
) -> Objective:
    """Build an objective of the model that training starts from.

    Args:
        node: ``objective`` in the configuration.
        model: The model.
        allowed_modules: Packages from which it may come, ``None`` for all.

    Raises:
        ConfigError: If it can't be built, is not an objective, or has weights that no checkpoint would hold.
    """
    objective: Objective = build(node, "objective", allowed_modules, {"model": model})
    name = type(objective).__name__
    if not callable(objective):
        raise ConfigError(f"objective: {name} is not an objective")
    if isinstance(objective, nn.Module):
        return objective
    of_model = set(model.modules())
    for attribute, value in getattr(objective, "__dict__", {}).items():
        if any(module not in of_model for module in _modules(value)):
            raise ConfigError(
                f"objective: {name} keeps a module of its own as '{attribute}', whose weights no checkpoint would have;"
                " let it derive from ObjectiveWithModules (vdm/objectives/base.py)"
            )
    return objective


def _modules(value: object) -> Iterator[nn.Module]:
    """Yield modules with weights, in containers too."""
    if isinstance(value, nn.Module):
        if value.state_dict():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _modules(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _modules(item)
