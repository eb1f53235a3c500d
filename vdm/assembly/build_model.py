"""From a configuration to a model with fresh weights."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import get_protocol_members

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.config import ConfigError, build
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.models.autoencoder import Autoencoder
from vdm.models.conditioner import Conditioner
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
        _check_conditioner(conditioner)
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
            own = {f"{name}.{weight}": shape for weight, shape in shapes_of(make().state_dict()).items()}
        refuse_difference(own, {weight: shape for weight, shape in stored.items() if weight.startswith(f"{name}.")})
    return make()


def _check_conditioner(conditioner: object) -> None:
    """Refuse what lacks something that every conditioner has.

    Raises:
        ConfigError: In one line that names it.
    """
    missing = sorted(name for name in get_protocol_members(Conditioner) if not hasattr(conditioner, name))
    if missing:
        raise ConfigError(
            f"model.conditioner: {type(conditioner).__name__} lacks {', '.join(missing)}, which"
            " vdm.models.conditioner.Conditioner describes"
        )


def _is_pretrained(node: Any) -> bool:
    """Tell whether a part of ``node`` is loaded from elsewhere."""
    return isinstance(node, Mapping) and ("name_or_path" in node or any(map(_is_pretrained, node.values())))


def refuse_difference(own: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> None:
    """Refuse stored weights whose names or shapes are others than a model's own.

    Raises:
        ValueError: It names the first that differs.
    """
    for name in sorted(own.keys() | stored.keys()):
        here, there = own.get(name), stored.get(name)
        if here is None or there is None or list(here) != list(there):
            raise ValueError(f"weights of another model: {name} has shape {there}, but {here} here")


def _build_network(
    config: Mapping[str, Any],
    encoder: Autoencoder,
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
        "image_conditioned": "image" in conditioner.takes,
    }
    return build(config["model"]["network"], "model.network", allowed_modules, known)


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the shapes of named tensors."""
    return {name: list(tensor.shape) for name, tensor in weights.items()}


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
