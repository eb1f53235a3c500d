"""From a configuration, or a checkpoint, to a model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.runs import latest_checkpoint, load_weights, merged_shapes, merged_weights
from vdm.config import ConfigError, build
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.generation.model import VideoDiffusionModel
from vdm.models.conditioner import Conditioner
from vdm.models.encoders import Encoder
from vdm.models.pretrained.diffusers_folder import cached_folder


def build_model(
    config: Mapping[str, Any],
    allowed_modules: Sequence[str] | None = None,
    on: AbstractContextManager[object] | None = None,
    stored: Mapping[str, Sequence[int]] | None = None,
) -> VideoDiffusionModel:
    """Build the model of a configuration, with fresh weights.

    Args:
        config: Whole configuration with ``encoder``, ``model``, ``diffusion``, ``sampler`` and ``guidance``.
        allowed_modules: Packages from which parts may come, ``None`` for all.
        on: Where weights are made, e.g. ``torch.device("meta")``; none for the CPU.
        stored: Shapes of the weights that the model is to get, by their names in it: parts that have others are refused
            before memory is taken for them.

    Raises:
        ConfigError: If a part can't be built.
        ValueError: If it has other weights than those stored.
    """
    diffusion: GaussianDiffusion = build(config["diffusion"], "diffusion", allowed_modules)
    with on or nullcontext():
        encoder = build(config["encoder"], "encoder", allowed_modules)
        node = config["model"]["conditioner"]
        of_conditioner = None if _is_pretrained(node) else stored  # whose sizes are those of the files
        conditioner = _fitting("conditioner", of_conditioner, lambda: build(node, "model.conditioner", allowed_modules))
        network = _fitting(
            "network", stored, lambda: _build_network(config, encoder, conditioner, diffusion, allowed_modules)
        )
    return VideoDiffusionModel(
        network,
        conditioner,
        encoder,
        diffusion,
        build(config["sampler"], "sampler", allowed_modules),
        build(config["guidance"], "guidance", allowed_modules),
    )


def _fitting(name: str, stored: Mapping[str, Sequence[int]] | None, make: Callable[[], Any]) -> Any:
    """Make a part of a model, after it was seen without memory for it that its weights are those stored."""
    if stored is not None:
        with torch.device("meta"):
            own = {f"{name}.{weight}": shape for weight, shape in _shapes(make().state_dict()).items()}
        _refuse_difference(own, {weight: shape for weight, shape in stored.items() if weight.startswith(f"{name}.")})
    return make()


def _is_pretrained(node: Any) -> bool:
    """Tell whether a part of ``node`` is loaded from elsewhere."""
    return isinstance(node, Mapping) and ("name_or_path" in node or any(map(_is_pretrained, node.values())))


def _refuse_difference(own: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> None:
    for name in sorted(own.keys() | stored.keys()):
        here, there = own.get(name), stored.get(name)
        if here is None or there is None or list(here) != list(there):
            raise ValueError(f"weights of another model: {name} has shape {there}, but {here} here")


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
    return load_recorded(RunConfig.read(Path(path), allow_own_code), path, ema)


def load_recorded(run: RunConfig, path: str | Path, ema: bool | str = True) -> VideoDiffusionModel:
    """Return the model of a configuration that was read, with the weights of its run; see ``load_model``."""
    checkpoint = latest_checkpoint(Path(path))
    try:
        model = build_recorded(run, _in_model(merged_shapes(checkpoint)))
        _put(merged_weights(checkpoint, ema), model)
    except ConfigError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model.eval()


def build_recorded(run: RunConfig, stored: Mapping[str, Sequence[int]]) -> VideoDiffusionModel:
    """Build the model of a run that may be anybody's, with fresh weights.

    Args:
        run: Its configuration.
        stored: Shapes of the weights that it is to get, by their names in it; see ``build_model``.

    Raises:
        ConfigError: If a part can't be built, or is not on this machine.
        ValueError: If the weights are others than those stored.
    """
    if run.allowed_modules is None:
        return build_model(run.parts)
    return build_model(_located(run.parts, ""), run.allowed_modules, stored=stored)


def _located(node: Any, key: str) -> Any:
    """Return ``node`` with the folders of pretrained parts in the place of their names on the hub.

    What is not on this machine is not fetched: the run may be anybody's.

    Raises:
        ConfigError: If a part is not here.
    """
    if isinstance(node, list):
        return [_located(value, f"{key}[{index}]") for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    located = {name: _located(value, f"{key}.{name}".lstrip(".")) for name, value in node.items()}
    if isinstance(name_or_path := node.get("name_or_path"), str):
        try:
            located["name_or_path"] = str(cached_folder(name_or_path))
        except ValueError as error:
            raise ConfigError(f"{key}.name_or_path: {error}") from None
    return located


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
    weights = load_weights(Path(path), ema)
    try:
        _put(weights, model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _put(weights: Mapping[str, Tensor], model: VideoDiffusionModel) -> None:
    named = _in_model(weights)
    _refuse_difference(_shapes(model.state_dict()), _shapes(named))
    model.load_state_dict(named)


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in weights.items()}


_Kept = TypeVar("_Kept")


def _in_model(by_name: Mapping[str, _Kept]) -> dict[str, _Kept]:
    """Return what a checkpoint holds by the names that weights have in a model; there it is part of a module."""
    return {name.removeprefix("model."): value for name, value in by_name.items()}
