"""From a model with its weights to one that is ready to train, and its objective."""

from collections.abc import Mapping
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import build, errors_at
from vdm.objectives.base import Objective
from vdm.objectives.build import build_objective


def prepare(model: VideoDiffusionModel, config: Mapping[str, Any]) -> Objective:
    """Choose which weights train, make the objective, and choose how the model's blocks run.

    The objective comes in between: it may copy the model, adapters included, but not blocks that are compiled.

    Args:
        model: The model, with the weights that training starts from.
        config: Whole configuration, with ``tune``, ``objective`` and ``blocks``.

    Raises:
        ConfigError: One line that names the key.
    """
    _apply("tune", model, config)
    objective = build_objective(config["objective"], model)
    _apply("blocks", model, config)
    return objective


def _apply(key: str, model: VideoDiffusionModel, config: Mapping[str, Any]) -> None:
    with errors_at(key):
        build(config[key], key).apply(model)
