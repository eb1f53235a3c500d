"""Reading and writing ModelScope's text-to-video model and Zeroscope as pipeline folders of diffusers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.models.component_config import (
    ComponentConfig,
    LevelsConfig,
    WidthPerLevel,
    read_component,
)
from vdm.models.modelscope.unet import ModelScopeUNet
from vdm.models.pretrained import schedulers
from vdm.models.pretrained.diffusers_folder import (
    SCHEDULER_CONFIG,
    STEM,
    PipelineFolder,
    same_at_every_level,
    weight_files,
)
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, check_names
from vdm.outside import read_json, typed
from vdm.ranges import Location, Name, Width

FOLDER = PipelineFolder(
    "TextToVideoSDPipeline",
    {
        "unet": ("diffusers", "UNet3DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "scheduler": ("diffusers", "DDIMScheduler"),
    },
    {"vae": STEM, "text_encoder": "model"},
)
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""As published with text-to-video-ms-1.7b; for folders that come without one."""
_FIXED = {
    "act_fn": "silu",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "num_attention_heads": None,
    "time_cond_proj_dim": None,
}
"""Options of diffusers whose values are the same in every published network."""


@dataclass(frozen=True)
class UNetConfig(LevelsConfig):
    """The keys that are read from the network's ``config.json``."""

    attention_head_dim: Width | WidthPerLevel
    out_channels: Width | None = None
    sample_size: Width | tuple[Width, Width] | None = None
    """Default height and width of the latents in diffusers."""


def open_folder(folder: Path, name: Location, variant: Name | None = None) -> Published:
    """Open a pipeline's folder as diffusers writes it.

    Args:
        folder: The folder.
        name: Name to record in the run's configuration: the folder's path, or its name on the hub.
        variant: Variant of the weights in the file names, e.g. ``fp16``.

    Raises:
        ValueError: If it holds another pipeline, a file is missing, or components don't fit each other.
    """
    variant = FOLDER.check(folder, variant)
    config_file = folder / "unet" / "config.json"
    config = read_json(config_file)
    options = network_options(config, config_file)
    weights = StoredTensors.open(weight_files(folder / "unet", variant))
    with torch.device("meta"):
        network = ModelScopeUNet(**options)
    check_names(weights, network, folder / "unet")
    text = _fitting(folder / "text_encoder", "hidden_size", options["text_channels"])
    autoencoder = _fitting(folder / "vae", "latent_channels", options["in_channels"])
    if text.max_position_embeddings is None or autoencoder.block_out_channels is None:
        raise ValueError(f"{folder}: max_position_embeddings of text_encoder or block_out_channels of vae is missing")
    scheduler_file = folder / "scheduler" / SCHEDULER_CONFIG
    scheduler = read_json(scheduler_file) if scheduler_file.is_file() else SCHEDULER
    sample_size = typed(UNetConfig, config, config_file).sample_size
    places = {"name_or_path": name, "variant": variant}
    text_encoder = {**places, "max_tokens": text.max_position_embeddings}
    settings = {
        "encoder": places,
        "text_encoder": text_encoder,
        "model": {"network": options, "conditioner": {"text_encoder": text_encoder}},
        **schedulers.settings(scheduler, scheduler_file),
        "clip": _size(sample_size, 2 ** (len(autoencoder.block_out_channels) - 1)),
    }
    return Published(weights, settings)


def write_folder(
    folder: Path,
    network: ModelScopeUNet,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Any],
    components: Path,
    variant: Name | None,
) -> None:
    """Write a folder that ``diffusers.TextToVideoSDPipeline.from_pretrained`` opens.

    Args:
        folder: An empty folder.
        network: The network, possibly on the meta device.
        weights: Its weights.
        trained: Configuration of its run.
        components: Folder of a pipeline from which the other components are copied.
        variant: Variant of the files to copy; the copies get names without a variant.

    Raises:
        ValueError: If a component is missing or does not fit, or diffusers has no scheduler for the run's diffusion.
    """
    _fitting(components / "text_encoder", "hidden_size", network.text_channels)
    _fitting(components / "vae", "latent_channels", network.in_channels)
    file = components / "scheduler" / SCHEDULER_CONFIG
    scheduler = schedulers.scheduler_config(trained["diffusion"], read_json(file) if file.is_file() else SCHEDULER)
    FOLDER.write(folder, network_config(network), {FOLDER.network: weights}, scheduler, components, variant)


def network_options(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the arguments of ``ModelScopeUNet`` that make the network of a ``config.json``.

    Raises:
        ValueError: If it describes a network of another class, or one that ``ModelScopeUNet`` can't represent.
    """
    FOLDER.check_network(config, source)
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise ValueError(f"{source}: {name}={config[name]}: only {value} is supported")
    unet = typed(UNetConfig, config, source)
    if not unet.is_symmetric or unet.in_channels != unet.out_channels:
        raise ValueError(f"{source}: networks whose way up differs from their way down are not supported")
    return {
        "channels": list(unet.block_out_channels),
        "in_channels": unet.in_channels,
        "num_blocks": same_at_every_level(unet.layers_per_block, "layers_per_block", source),
        "attention_levels": unet.attention_levels,
        # In spite of its name in diffusers, this is the width of a head.
        "head_channels": same_at_every_level(unet.attention_head_dim, "attention_head_dim", source),
        "text_channels": same_at_every_level(unet.cross_attention_dim, "cross_attention_dim", source),
    }


def network_config(network: ModelScopeUNet) -> dict[str, Any]:
    """Return the ``config.json`` from which diffusers builds the same network."""
    attends = [level in network.attention_levels for level in range(len(network.channels))]
    return {
        "_class_name": FOLDER.network_class,
        "in_channels": network.in_channels,
        "out_channels": network.in_channels,
        "down_block_types": [_block(attending, "Down") for attending in attends],
        "up_block_types": [_block(attending, "Up") for attending in reversed(attends)],
        "block_out_channels": list(network.channels),
        "layers_per_block": network.num_blocks,
        "cross_attention_dim": network.text_channels,
        "attention_head_dim": network.head_channels,
        **_FIXED,
    }


def _fitting(folder: Path, name: str, value: int) -> ComponentConfig:
    """Return the sizes of a component; refuse it unless the size ``name`` equals ``value``, that of the network."""
    config = read_component(folder)
    found = getattr(config, name)
    if found != value:
        raise ValueError(f"{folder / 'config.json'}: {name} is {found}, but the network needs {value}")
    return config


def _size(sample_size: int | tuple[int, int] | None, pixels_per_latent: int) -> dict[str, int]:
    """Return the default height and width of videos in diffusers, in pixels."""
    if sample_size is None:
        return {}
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return {"height": height * pixels_per_latent, "width": width * pixels_per_latent}


def _block(attending: bool, direction: str) -> str:
    return f"{'CrossAttn' if attending else ''}{direction}Block3D"
