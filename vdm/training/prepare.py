"""Preparation of a model for training: its trained weights, its objective, and how its blocks run."""

from collections.abc import Mapping
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.config import build, errors_at
from vdm.objectives.base import Objective
from vdm.objectives.build import build_objective
from vdm.training.step_experts import freeze_others
from vdm.training.tuning import LoRA


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


def with_settled_lora(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with what the file of ``tune=lora`` decides, to be recorded: it may be gone on resuming.

    Raises:
        ConfigError: One line that names the key.
    """
    tune = config["tune"]
    with errors_at("tune"):
        tuning = build(tune, "tune")
        if not isinstance(tuning, LoRA) or tuning.file is None:
            return dict(config)
        own = tuning.settled()
    return {**config, "tune": {**tune, "layers": list(own.layers or ()), "rank": own.rank, "alpha": own.alpha}}


def without_lora_file(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with which a run is resumed: its LoRA is that of the checkpoint."""
    return {**config, "tune": {**config["tune"], "file": None}} if config["tune"].get("file") else dict(config)


def _apply(key: str, model: VideoDiffusionModel, config: Mapping[str, Any]) -> None:
    with errors_at(key):
        build(config[key], key).apply(model)
