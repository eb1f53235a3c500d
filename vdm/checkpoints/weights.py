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
    """Return a checkpoint's weights of the model, or those of a run's latest one, by name, what LoRA adds merged in.

    The arguments are those of ``saved_weights``.
    """
    return merged_weights(latest_checkpoint(path), ema)


def merged_weights(checkpoint: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return what ``load_weights`` does of a checkpoint that is known to be whole."""
    return merged(_weights(checkpoint, ema))


def merged_shapes(checkpoint: Path) -> dict[str, list[int]]:
    """Return the shapes of what ``merged_weights`` returns, without reading it."""
    shapes = SavedCheckpoint(checkpoint).weights.shapes
    return {name: list(shape) for name, shape in shapes.items() if not is_added(name) and not is_of_objective(name)}


def saved_weights(path: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return a checkpoint's weights of the model, or those of a run's latest one, by name, as they were saved.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Take averaged weights for those that have an average; a text names one of several averages.

    Raises:
        ValueError: If there is no whole checkpoint, or no average of that name.
    """
    return _weights(latest_checkpoint(path), ema)


def objective_weights(checkpoint: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return a whole checkpoint's weights of what the objective brought to training, by their names in it."""
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
    averages = saved.named_ema(ema) if isinstance(ema, str) else saved.ema
    averaged = averages.shapes if ema else {}
    names = filter(is_wanted, saved.weights.shapes)
    return {name: (averages if name in averaged else saved.weights).whole(name) for name in names}
