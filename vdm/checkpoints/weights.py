"""The weights in a checkpoint, as whole tensors."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.models.lora import is_added, merged

_OBJECTIVE = "objective."
"""Prefix of the names of weights that belong to the objective, not to the model."""


def load_weights(path: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return the model's weights in a checkpoint, or in a run's latest one, by name, with LoRA weights merged in.

    Arguments and errors are those of ``saved_weights``.
    """
    return merged_weights(latest_checkpoint(path), ema)


def merged_weights(checkpoint: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return the result of ``load_weights`` for a checkpoint that has been verified."""
    return merged(_weights(checkpoint, ema))


def merged_shapes(checkpoint: Path) -> dict[str, list[int]]:
    """Return the shapes of the weights that ``merged_weights`` returns, without reading these."""
    shapes = SavedCheckpoint(checkpoint).weights.shapes
    return {name: list(shape) for name, shape in shapes.items() if not is_added(name) and not is_of_objective(name)}


def saved_weights(path: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return the model's weights in a checkpoint, or in a run's latest one, by name, as they were saved.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Whether to take EMA weights, for weights that have an EMA; a text names one of several EMAs.

    Raises:
        ValueError: If there is no whole checkpoint, or no EMA of that name.
    """
    return _weights(latest_checkpoint(path), ema)


def objective_weights(checkpoint: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return the weights of the objective's modules in a verified checkpoint, by their names in the objective."""
    return {
        name.removeprefix(_OBJECTIVE): weight for name, weight in _all_weights(checkpoint, ema, is_of_objective).items()
    }


def is_of_objective(name: str) -> bool:
    """Tell whether a weight of a checkpoint belongs to the objective, not to the model."""
    return name.startswith(_OBJECTIVE)


def _weights(checkpoint: Path, ema: bool | str) -> dict[str, Tensor]:
    return _all_weights(checkpoint, ema, lambda name: not is_of_objective(name))


def _all_weights(checkpoint: Path, ema: bool | str, is_wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    saved = SavedCheckpoint(checkpoint)
    ema_weights = saved.named_ema(ema) if isinstance(ema, str) else saved.ema
    averaged = ema_weights.shapes if ema else {}
    names = filter(is_wanted, saved.weights.shapes)
    return {name: (ema_weights if name in averaged else saved.weights).whole(name) for name in names}
