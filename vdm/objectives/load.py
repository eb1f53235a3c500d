"""The objective of a run, as it was when a checkpoint was saved."""

from pathlib import Path

from torch import nn

from vdm.assembly.build import refuse_difference, shapes_of
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.runs import objective_weights
from vdm.config import ConfigError, build
from vdm.objectives.base import Objective


def load_objective(run: RunConfig, checkpoint: Path, model: VideoDiffusionModel, ema: bool | str = True) -> Objective:
    """Build what a run minimized, with the weights of the modules that it brought.

    Args:
        run: Configuration of the run.
        checkpoint: A whole checkpoint of it.
        model: The run's model; the objective's modules are put where it is.
        ema: Take averaged weights; a text names one of several averages.

    Raises:
        ConfigError: If the objective is code of the run's own that is not allowed to run, or can't be built.
        ValueError: If its weights are not those stored.
    """
    if run.objective is None:
        raise ConfigError(
            f"{run.file}: objective: is no class of vdm.objectives; allow_own_code=true runs the code that it names"
        )
    allowed = None if run.allowed_modules is None else ("vdm.objectives",)
    objective: Objective = build(run.objective, "objective", allowed, {"model": model})
    if isinstance(objective, nn.Module):
        weights = objective_weights(checkpoint, ema)
        try:
            refuse_difference(shapes_of(objective.state_dict()), shapes_of(weights))
        except ValueError as error:
            raise ValueError(f"{checkpoint}: objective: {error}") from None
        objective.load_state_dict(weights)
        objective.to(model.device).eval()
    return objective
