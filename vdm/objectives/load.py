"""Loading the objective of a run from a checkpoint."""

from pathlib import Path

from torch import nn

from vdm.assembly.build_model import refuse_difference, shapes_of
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.weights import objective_weights
from vdm.config import ConfigError
from vdm.models.lora import is_added, merged
from vdm.objectives.base import Objective
from vdm.objectives.build import build_objective


def load_objective(run: RunConfig, checkpoint: Path, model: VideoDiffusionModel, ema: bool | str = True) -> Objective:
    """Build the objective of a run, and load the weights of its modules.

    Args:
        run: Configuration of the run.
        checkpoint: A complete checkpoint of the run.
        model: The run's model, whose device the objective's modules are moved to.
        ema: Whether to load EMA weights; a text names one of several.

    Raises:
        ConfigError: If the objective is the run's own code and may not run, or can't be built.
        ValueError: If the stored weights are missing or don't match.
    """
    if run.objective is None:
        raise ConfigError(f"{run.file}: {run.objective_fault}")
    allowed = None if run.allowed_modules is None else ("vdm.objectives",)
    autoguidance_model, model.autoguidance_model = model.autoguidance_model, None  # of sampling, not of training
    try:
        objective = build_objective(run.objective, model, allowed)
    finally:
        model.autoguidance_model = autoguidance_model
    if isinstance(objective, nn.Module):
        own, weights = shapes_of(objective.state_dict()), objective_weights(checkpoint, ema)
        if own and not weights:
            raise ValueError(
                f"{checkpoint}: objective: its modules have no weights here, since vdm ema and vdm export leave them"
                " out: evaluate the run itself"
            )
        if not any(map(is_added, own)):  # the objective copied a model with LoRA, which is merged when a run is loaded
            weights = merged(weights)
        try:
            refuse_difference(own, shapes_of(weights))
        except ValueError as error:
            raise ValueError(f"{checkpoint}: objective: {error}") from None
        objective.load_state_dict(weights)
        objective.to(model.device).eval()
    return objective
