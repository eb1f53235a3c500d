"""Preparation of a model for training: its trained weights, its objective, and how its blocks run."""

from collections.abc import Mapping
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import build, errors_at
from vdm.objectives.base import Objective
from vdm.objectives.build import build_objective
from vdm.training.step_experts import freeze_others


def prepare(model: VideoDiffusionModel, config: Mapping[str, Any]) -> Objective:
    """Choose the trained weights, build the objective, then checkpoint and compile the model's blocks.

    The order matters: the objective may copy the model with its LoRA adapters, but can't copy compiled blocks.

    Args:
        model: The model, with the weights that training starts from.
        config: Whole configuration, with ``experts``, ``tune``, ``objective`` and ``blocks``.

    Raises:
        ConfigError: One line that names the key.
    """
    with errors_at("experts"):
        freeze_others(model, config.get("experts", "both"))  # before LoRA, which leaves out what is frozen
    _apply("tune", model, config)
    objective = build_objective(config["objective"], model)
    _apply("blocks", model, config)
    return objective


def _apply(key: str, model: VideoDiffusionModel, config: Mapping[str, Any]) -> None:
    with errors_at(key):
        build(config[key], key).apply(model)
