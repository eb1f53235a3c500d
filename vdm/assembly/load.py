"""Loading of a trained model from a run or one of its checkpoints."""

from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

from vdm.assembly.build_model import build_recorded, refuse_difference, shapes_of
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.weights import MergedWeights
from vdm.config import ConfigError
from vdm.models.pretrained.stored import WeightFiles, load


def load_trained(path: str | Path, ema: bool | str = True, allow_own_code: bool = False) -> VideoDiffusionModel:
    """Return the model of a run, or of one of its checkpoints, with its weights, on the CPU.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Load EMA weights; a text names one of several averages.
        allow_own_code: Allow the run's configuration to name classes outside this project, whose code then runs.

    Raises:
        ValueError: If there is no complete checkpoint, or its weights don't fit its configuration.
    """
    run = RunConfig.read(Path(path), allow_own_code)
    return _load_whole(run, latest_checkpoint(Path(path)), ema)


def load_with_guide(
    run: RunConfig, checkpoint: Path, ema: bool | str, guide: str | Path | None, allow_own_code: bool
) -> VideoDiffusionModel:
    """Return the model of a checkpoint as videos are made with it, on the CPU.

    Args:
        run: Configuration of its run.
        checkpoint: Folder of a checkpoint that is known to be complete.
        ema: Load EMA weights; a text names one of several averages.
        guide: Run or checkpoint of the autoguidance model, if there is to be one.
        allow_own_code: Allow the configuration of ``guide`` to name classes outside this project.

    Raises:
        ValueError: If the weights don't fit the configuration, or the autoguidance model can't be loaded or used.
    """
    model = _load_whole(run, checkpoint, ema)
    if guide is not None:
        model.autoguidance_model = load_autoguidance_model(model, guide, ema, allow_own_code)
    # Reconstruction guidance needs gradients with respect to latents; gradients of weights would cost memory.
    return model.requires_grad_(False)


def _load_whole(run: RunConfig, checkpoint: Path, ema: bool | str) -> VideoDiffusionModel:
    try:
        weights = MergedWeights(checkpoint, ema)
        shapes = _in_model(weights.shapes)
        model = build_recorded(run, shapes)
        refuse_difference(shapes_of(model.state_dict()), shapes)
        read_into(model, weights)
    except ConfigError:
        raise
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from None
    return model.eval()


def load_autoguidance_model(
    model: VideoDiffusionModel, path: str | Path, ema: bool | str = True, allow_own_code: bool = False
) -> VideoDiffusionModel:
    """Load another run's model as the autoguidance model of ``model``; for the other arguments see ``load_trained``.

    Raises:
        ValueError: If it can't be loaded, or its latents or conditions differ from the model's.
    """
    weak = load_trained(path, ema, allow_own_code)
    for name, own, its in (
        ("encoder", type(model.encoder).__name__, type(weak.encoder).__name__),
        ("conditioner", type(model.conditioner).__name__, type(weak.conditioner).__name__),
        ("channels of latents", model.encoder.channels, weak.encoder.channels),
        ("frames and pixels in a latent", astuple(model.encoder.compression), astuple(weak.encoder.compression)),
        ("number of classes", model.conditioner.num_classes, weak.conditioner.num_classes),
    ):
        if own != its:
            raise ValueError(f"guide={path}: its {name} is {its}, but that of the model to be guided is {own}")
    return weak


def load_into(model: VideoDiffusionModel, path: str | Path, ema: bool | str = True) -> None:
    """Load the weights of a run or checkpoint into a model.

    Raises:
        ValueError: As in ``open_weights``.
    """
    read_into(model, open_weights(model, path, ema))


def open_weights(model: VideoDiffusionModel, path: str | Path, ema: bool | str = True) -> MergedWeights:
    """Open the weights of a run or checkpoint, for a model that may have no memory for its weights yet.

    Raises:
        ValueError: If names or shapes differ; the message names the first difference.
    """
    weights = MergedWeights(latest_checkpoint(Path(path)), ema)
    try:
        refuse_difference(shapes_of(model.state_dict()), _in_model(weights.shapes))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return weights


def read_into(model: VideoDiffusionModel, weights: WeightFiles) -> None:
    """Read weights, some or all, into a model; they are named as in a checkpoint."""
    load(weights, model, _MODEL)


_MODEL = "model."
"""Prefix of the names of a model's weights in a checkpoint."""
_Kept = TypeVar("_Kept")


def _in_model(by_name: Mapping[str, _Kept]) -> dict[str, _Kept]:
    """Return the content of a checkpoint by the names of a model's weights."""
    return {name.removeprefix(_MODEL): value for name, value in by_name.items()}


VideoDiffusionModel.from_checkpoint = staticmethod(load_trained)
