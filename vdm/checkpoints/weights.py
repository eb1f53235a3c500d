"""The weights in a checkpoint, as whole tensors or read slice by slice."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.pieces import PieceFiles
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.models.lora import added_to, is_added, merged

_OBJECTIVE = "objective."
"""Prefix of the names of weights that belong to the objective, not to the model."""


class MergedWeights:
    """The model's weights in a checkpoint that has been verified, with LoRA weights merged in, read on demand.

    Args:
        checkpoint: Folder of the checkpoint.
        ema: As in ``saved_weights``.

    Raises:
        ValueError: If it has no EMA of that name.
    """

    def __init__(self, checkpoint: Path, ema: bool | str = True) -> None:
        self._files = _files(checkpoint, ema, lambda name: not is_of_objective(name))

    @property
    def shapes(self) -> Mapping[str, list[int]]:
        """The shape of each weight, by name."""
        return {name: list(files.shapes[name]) for name, files in self._files.items() if not is_added(name)}

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Return ``count`` elements of a flattened weight from ``start`` on.

        Little more is read from disk, but of a layer with LoRA the whole layer.
        """
        if self._added_to(name):
            return self.whole(name).reshape(-1)[start : start + count]
        return self._files[name].read(name, start, count)

    def whole(self, name: str) -> Tensor:
        """Return a whole weight."""
        return merged({part: self._files[part].whole(part) for part in (name, *self._added_to(name))})[name]

    def _added_to(self, name: str) -> list[str]:
        return [part for part in added_to(name) if part in self._files]


def load_weights(path: Path, ema: bool | str = True) -> dict[str, Tensor]:
    """Return the model's weights in a checkpoint, or in a run's latest one, by name, with LoRA weights merged in.

    Arguments and errors are those of ``saved_weights``.
    """
    files = MergedWeights(latest_checkpoint(path), ema)
    return {name: files.whole(name) for name in files.shapes}


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
    return {name: files.whole(name) for name, files in _files(checkpoint, ema, is_wanted).items()}


def _files(checkpoint: Path, ema: bool | str, is_wanted: Callable[[str], bool]) -> dict[str, PieceFiles]:
    """Return, for each weight by name, the files in which it is."""
    saved = SavedCheckpoint(checkpoint)
    ema_weights = saved.named_ema(ema) if isinstance(ema, str) else saved.ema
    averaged = ema_weights.shapes if ema else {}
    return {
        name: ema_weights if name in averaged else saved.weights for name in saved.weights.shapes if is_wanted(name)
    }
