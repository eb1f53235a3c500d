"""From a configuration, or a checkpoint, to a model."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from vdm.checkpoints.runs import load_config, load_weights
from vdm.config import build
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.generation.model import VideoDiffusionModel
from vdm.models.conditioner import Conditioner
from vdm.models.encoders import Encoder

OWN_MODULES = ("vdm.models", "vdm.diffusion")
"""Where the parts of a model read from a checkpoint may come from: a configuration from outside must not run code."""


def build_model(
    config: Mapping[str, Any],
    allowed_modules: Sequence[str] | None = None,
    on: AbstractContextManager[object] | None = None,
) -> VideoDiffusionModel:
    """Build the model of a configuration, with fresh weights.

    Args:
        config: Whole configuration with ``encoder``, ``model``, ``diffusion``, ``sampler`` and ``guidance``.
        allowed_modules: Packages from which parts may come, ``None`` for all.
        on: Where weights are made, e.g. ``torch.device("meta")``; none for the CPU.

    Raises:
        ConfigError: If a part can't be built.
    """
    diffusion: GaussianDiffusion = build(config["diffusion"], "diffusion", allowed_modules)
    with on or nullcontext():
        encoder = build(config["encoder"], "encoder", allowed_modules)
        conditioner = build(config["model"]["conditioner"], "model.conditioner", allowed_modules)
        network = _build_network(config, encoder, conditioner, diffusion, allowed_modules)
    return VideoDiffusionModel(
        network,
        conditioner,
        encoder,
        diffusion,
        build(config["sampler"], "sampler", allowed_modules),
        build(config["guidance"], "guidance", allowed_modules),
    )


def _build_network(
    config: Mapping[str, Any],
    encoder: Encoder,
    conditioner: Conditioner,
    diffusion: GaussianDiffusion,
    allowed_modules: Sequence[str] | None,
) -> nn.Module:
    # What the network must fit is known here and need not be repeated in YAML; a network of one's own may ignore it.
    known = {
        "in_channels": encoder.channels,
        "out_channels": diffusion.out_channels(encoder.channels),
        "text_channels": conditioner.text_channels,
        "vector_channels": conditioner.vector_channels,
        "image_conditioned": conditioner.uses_image,
    }
    return build(config["model"]["network"], "model.network", allowed_modules, known)


def load_model(path: str | Path, ema: bool | str = True, allow_own_code: bool = False) -> VideoDiffusionModel:
    """Return the model of a run, or of one of its checkpoints, with its weights, on the CPU.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Take averaged weights; a text names one of several averages.
        allow_own_code: Let the run's configuration name classes outside this project, which runs their code.

    Raises:
        ValueError: If there is no whole checkpoint, or its weights don't fit its configuration.
    """
    config = load_config(Path(path))
    model = build_model(config, None if allow_own_code else OWN_MODULES)
    load_into(model, path, ema)
    return model.eval()


def load_guide(
    model: VideoDiffusionModel, path: str | Path, ema: bool | str = True, allow_own_code: bool = False
) -> VideoDiffusionModel:
    """Return another run's model as the weak one of autoguidance; the arguments are those of ``load_model``.

    Raises:
        ValueError: If it can't be loaded, or can't be told what the model is told.
    """
    guide = load_model(path, ema, allow_own_code)
    for name, own, its in (
        ("encoder", type(model.encoder).__name__, type(guide.encoder).__name__),
        ("conditioner", type(model.conditioner).__name__, type(guide.conditioner).__name__),
        ("channels of latents", model.encoder.channels, guide.encoder.channels),
        ("number of classes", model.conditioner.num_classes, guide.conditioner.num_classes),
    ):
        if own != its:
            raise ValueError(f"guide={path}: its {name} is {its}, but that of the model to be guided is {own}")
    return guide


def load_into(model: VideoDiffusionModel, path: str | Path, ema: bool | str = True) -> None:
    """Put the weights of a run or checkpoint into a model.

    Raises:
        ValueError: If names or shapes differ: the first difference is named.
    """
    weights = {name.removeprefix("model."): tensor for name, tensor in load_weights(Path(path), ema).items()}
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        here, there = own.get(name), weights.get(name)
        if here is None or there is None or here.shape != there.shape:
            shapes = [None if tensor is None else list(tensor.shape) for tensor in (there, here)]
            raise ValueError(f"{path}: weights of another model: {name} has shape {shapes[0]}, but {shapes[1]} here")
    model.load_state_dict(weights)
