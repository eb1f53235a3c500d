"""Text-to-video of ModelScope and Zeroscope as diffusers' pipeline saves it."""

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
"""What diffusers lets one choose, and every published network has so."""


@dataclass(frozen=True)
class UNetConfig(LevelsConfig):
    """What is read of the network's ``config.json``."""

    attention_head_dim: Width | WidthPerLevel
    out_channels: Width | None = None
    sample_size: Width | tuple[Width, Width] | None = None
    """Height and width of latents that diffusers makes unless told otherwise."""


def open_folder(folder: Path, name: Location, variant: Name | None = None) -> Published:
    """Open a pipeline's folder as diffusers writes it.

    Args:
        folder: The folder.
        name: What the folder is to be called later: its path, or the name on the hub of which it is a copy.
        variant: As in the files' names, e.g. ``fp16``.

    Raises:
        ValueError: If it is another pipeline's, something is missing, or parts don't fit each other.
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
    """Write what ``diffusers.TextToVideoSDPipeline.from_pretrained`` opens.

    Args:
        folder: An empty folder.
        network: The network, possibly on the meta device.
        weights: Its weights.
        trained: Configuration of its run.
        components: Folder of the pipeline from which the other components are taken.
        variant: Of their files; here they get the usual names.

    Raises:
        ValueError: If a component is missing there or does not fit, or diffusers can't say how the run was trained.
    """
    _fitting(components / "text_encoder", "hidden_size", network.text_channels)
    _fitting(components / "vae", "latent_channels", network.in_channels)
    file = components / "scheduler" / SCHEDULER_CONFIG
    scheduler = schedulers.scheduler_config(trained["diffusion"], read_json(file) if file.is_file() else SCHEDULER)
    FOLDER.write(folder, network_config(network), weights, scheduler, components, variant)


def network_options(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the arguments of ``ModelScopeUNet`` that make the network of a ``config.json``.

    Raises:
        ValueError: If it describes another network, or one that ``ModelScopeUNet`` is not.
    """
    FOLDER.check_unet(config, source)
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise ValueError(f"{source}: {name}={config[name]}: only {value} is known here")
    unet = typed(UNetConfig, config, source)
    if not unet.is_symmetric or unet.in_channels != unet.out_channels:
        raise ValueError(f"{source}: a network whose two halves differ")
    return {
        "channels": list(unet.block_out_channels),
        "in_channels": unet.in_channels,
        "num_blocks": same_at_every_level(unet.layers_per_block, "layers_per_block", source),
        "attention_levels": unet.attention_levels,
        # So it is called there, and is the width of a head.
        "head_channels": same_at_every_level(unet.attention_head_dim, "attention_head_dim", source),
        "text_channels": same_at_every_level(unet.cross_attention_dim, "cross_attention_dim", source),
    }


def network_config(network: ModelScopeUNet) -> dict[str, Any]:
    """Return the ``config.json`` from which diffusers makes the same network."""
    attends = [level in network.attention_levels for level in range(len(network.channels))]
    return {
        "_class_name": FOLDER.unet,
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
    """Return a component's sizes, of which a width must be the network's."""
    config = read_component(folder)
    found = getattr(config, name)
    if found != value:
        raise ValueError(f"{folder / 'config.json'}: {name} is {found}, but the network needs {value}")
    return config


def _size(sample_size: int | tuple[int, int] | None, pixels_per_latent: int) -> dict[str, int]:
    """Return height and width in pixels of what diffusers makes unless told otherwise."""
    if sample_size is None:
        return {}
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return {"height": height * pixels_per_latent, "width": width * pixels_per_latent}


def _block(attending: bool, direction: str) -> str:
    return f"{'CrossAttn' if attending else ''}{direction}Block3D"
