"""Models with initial weights, built from a configuration."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import get_protocol_members

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.run_config import RunConfig
from vdm.config import ConfigError, build
from vdm.diffusion.frame_levels import trained_on_any_levels
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.models.autoencoder import Autoencoder
from vdm.models.conditioner import Conditioner
from vdm.models.experts import EXPERTS, NUM_TIMESTEPS, TwoExperts
from vdm.models.known_frames_conditioner import KnownFramesConditioner
from vdm.models.meta_weights import make_on_meta
from vdm.models.pretrained.diffusers_folder import cached_folder


def build_model(
    config: Mapping[str, Any],
    allowed_modules: Sequence[str] | None = None,
    on: AbstractContextManager[object] | None = None,
    stored: Mapping[str, Sequence[int]] | None = None,
    is_network_read: bool = False,
) -> VideoDiffusionModel:
    """Build the model of a configuration, with initial weights.

    Args:
        config: Whole configuration with ``encoder``, ``model``, ``diffusion``, ``sampler`` and ``guidance``.
        allowed_modules: Packages from which components may come; ``None`` allows all.
        on: Device on which weights are created, e.g. ``torch.device("meta")``; None for the CPU.
        stored: Shapes of the weights that will be loaded, by name. A component with other weights is refused before
            memory is allocated for it.
        is_network_read: Whether all weights of the network will be read from files. If the network allows it, they are
            on the meta device then; see ``vdm.models.meta_weights``.

    Raises:
        ConfigError: If a component can't be built.
        ValueError: If its weights differ from those stored.
    """
    diffusion: GaussianDiffusion = build(config["diffusion"], "diffusion", allowed_modules)
    with on or nullcontext():
        encoder = build(config["encoder"], "encoder", allowed_modules)
        node = config["model"]["conditioner"]
        of_conditioner = None if _is_pretrained(node) else stored  # its sizes come with the files
        conditioner = _fitting("conditioner", of_conditioner, lambda: build(node, "model.conditioner", allowed_modules))
        _check_conditioner(conditioner)

        def make() -> nn.Module:
            return _build_network(config, encoder, conditioner, diffusion, allowed_modules)

        network = (make_on_meta(make) if is_network_read else None) or _fitting("network", stored, make)
    _check_experts(network, diffusion)
    return VideoDiffusionModel(
        network,
        conditioner,
        encoder,
        diffusion,
        build(config["sampler"], "sampler", allowed_modules),
        build(config["guidance"], "guidance", allowed_modules),
    )


def _fitting(name: str, stored: Mapping[str, Sequence[int]] | None, make: Callable[[], Any]) -> Any:
    """Build a component after checking, on the meta device, that its weights are those stored."""
    if stored is not None:
        with torch.device("meta"):
            own = {f"{name}.{weight}": shape for weight, shape in shapes_of(make().state_dict()).items()}
        refuse_difference(own, {weight: shape for weight, shape in stored.items() if weight.startswith(f"{name}.")})
    return make()


def _check_conditioner(conditioner: object) -> None:
    """Refuse a conditioner that does not implement the Protocol.

    Raises:
        ConfigError: In one line that names the missing members.
    """
    missing = sorted(name for name in get_protocol_members(Conditioner) if not hasattr(conditioner, name))
    if missing:
        raise ConfigError(
            f"model.conditioner: {type(conditioner).__name__} lacks {', '.join(missing)}, which"
            " vdm.models.conditioner.Conditioner describes"
        )


def _is_pretrained(node: Any) -> bool:
    """Tell whether any component in ``node`` is loaded from published weights."""
    return isinstance(node, Mapping) and ("name_or_path" in node or any(map(_is_pretrained, node.values())))


def refuse_difference(own: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> None:
    """Refuse stored weights whose names or shapes differ from the model's.

    Raises:
        ValueError: In one line that names the first difference.
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
    # These follow from the other components. A user's network may leave any of them out of its constructor.
    known = {
        "in_channels": encoder.channels,
        "out_channels": diffusion.out_channels(encoder.channels),
        "text_channels": conditioner.text_channels,
        "vector_channels": conditioner.vector_channels,
        "image_conditioned": "image" in conditioner.takes or "frames" in conditioner.takes,
    }
    needed = _of_known_frames(conditioner, encoder)
    node = config["model"]["network"]
    # Each of two experts gets them.
    experts = {
        name: build(node[name], f"model.network.{name}", allowed_modules, known | needed)
        for name in EXPERTS
        if isinstance(node.get(name), Mapping)
    }
    network = build(node, "model.network", allowed_modules, known | needed, **experts)
    for each in experts.values() or [network]:
        _check_known_frames(each, needed)
    return network


def _of_known_frames(conditioner: Conditioner, encoder: Autoencoder) -> dict[str, int]:
    """Return the arguments of a network that is told known frames in channels; none for another."""
    if not isinstance(conditioner, KnownFramesConditioner):
        return {}
    return {
        "image_channels": conditioner.image_channels(encoder),
        "image_token_channels": conditioner.image_token_channels,
        "num_image_tokens": conditioner.num_image_tokens if conditioner.pictures == "both_ends" else 0,
    }


def _check_known_frames(network: nn.Module, needed: Mapping[str, int]) -> None:
    """Refuse a network that is not told known frames as the conditioner tells them.

    Raises:
        ConfigError: In one line that names the key.
    """
    for name, value in needed.items():
        if not hasattr(network, name):
            raise ConfigError(f"model.network: {type(network).__name__} has no {name}, in which known frames are told")
        if (found := getattr(network, name)) != value:
            raise ConfigError(f"model.network.{name}={found}: must be {value} with these model.conditioner and encoder")


def _check_experts(network: nn.Module, diffusion: GaussianDiffusion) -> None:
    """Refuse two experts whose noise levels can't be told by the timestep.

    Raises:
        ConfigError: In one line that names the key.
    """
    if not isinstance(network, TwoExperts):
        return
    t = torch.tensor([0.25, 0.5, network.boundary], device="cpu")
    timestep = diffusion.parameterization.c_noise(*diffusion.schedule.alpha_sigma(t))
    if not torch.allclose(timestep[:2], NUM_TIMESTEPS * t[:2]):
        raise ConfigError("diffusion: two experts are told apart by the timesteps of diffusion=wan")
    if abs(timestep[2] - NUM_TIMESTEPS * t[2]) > 0.01:  # whole timesteps: a level would change sides
        raise ConfigError(f"model.network.boundary={network.boundary}: must be a whole number of thousandths")
    if trained_on_any_levels(diffusion.frame_levels):
        raise ConfigError("diffusion.frame_levels: with two experts all noised frames of a clip need the same level")


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the shapes of named tensors."""
    return {name: list(tensor.shape) for name, tensor in weights.items()}


def build_recorded(run: RunConfig, stored: Mapping[str, Sequence[int]]) -> VideoDiffusionModel:
    """Build the model of a run from any source, with initial weights.

    Args:
        run: The checked configuration of the run.
        stored: Shapes of the weights that will be loaded; see ``build_model``.

    Raises:
        ConfigError: If a component can't be built, or is not on this machine.
        ValueError: If the weights differ from those stored.
    """
    if run.allowed_modules is None:
        return build_model(run.parts)
    return build_model(_located(run.parts, ""), run.allowed_modules, stored=stored)


def _located(node: Any, key: str) -> Any:
    """Return ``node`` with local folders of pretrained components in place of their names on the hub.

    Nothing is downloaded, since the run may come from a stranger.

    Raises:
        ConfigError: If a component is not on this machine.
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
