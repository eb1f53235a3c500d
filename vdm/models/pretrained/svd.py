"""Reading and writing Stable Video Diffusion as a pipeline folder of diffusers or as Stability's single file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from vdm.files import appearing
from vdm.models.component_config import Depth, DepthPerLevel, LevelsConfig, WidthPerLevel
from vdm.models.pretrained import stability
from vdm.models.pretrained.diffusers_folder import (
    SCHEDULER_CONFIG,
    STEM,
    PipelineFolder,
    same_at_every_level,
    weight_files,
)
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, check_names, save_tensors
from vdm.models.svd.unet import SVDUNet
from vdm.outside import read_json, typed
from vdm.ranges import Location, Name, Size, Width

FOLDER = PipelineFolder(
    "StableVideoDiffusionPipeline",
    {
        "unet": ("diffusers", "UNetSpatioTemporalConditionModel"),
        "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
        "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
        "feature_extractor": ("transformers", "CLIPImageProcessor"),
        "scheduler": ("diffusers", "EulerDiscreteScheduler"),
    },
    {"vae": STEM, "image_encoder": "model"},
)
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
"""As published with img2vid and img2vid-xt; for folders that come without one."""


@dataclass(frozen=True)
class UNetConfig(LevelsConfig):
    """The keys that are read from the network's ``config.json``."""

    out_channels: Width
    num_attention_heads: Width | WidthPerLevel
    transformer_layers_per_block: Depth | DepthPerLevel
    addition_time_embed_dim: Width
    projection_class_embeddings_input_dim: Width
    num_frames: Annotated[int, Interval(ge=1, le=100_000)] = 14


def open_folder(folder: Path, name: Location, variant: Name | None = None) -> Published:
    """Open a pipeline's folder as diffusers writes it.

    Args:
        folder: The folder.
        name: Name to record in the run's configuration: the folder's path, or its name on the hub.
        variant: Variant of the weights in the file names, e.g. ``fp16``.

    Raises:
        ValueError: If it holds another pipeline, a file is missing, or weights and configuration don't match.
    """
    variant = FOLDER.check(folder, variant)
    config_file = folder / "unet" / "config.json"
    config = read_json(config_file)
    options = network_options(config, config_file)
    weights = StoredTensors.open(weight_files(folder / "unet", variant))
    check_names(weights, _on_meta(options), folder / "unet")
    return _published(options, weights, typed(UNetConfig, config, config_file).num_frames, name, variant)


def open_file(file: Path, components: Location, num_frames: Size | None = None) -> Published:
    """Open one of Stability's single files.

    Args:
        file: The file.
        components: Folder of a pipeline, or its name on the hub, that provides autoencoder and image encoder.
        num_frames: Number of frames that the network was trained for, which is not in the file. By default 25 if the
            file's name contains "xt", otherwise 14, as published.

    Raises:
        ValueError: If it is incomplete, not a safetensors file, or holds another model.
    """
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: not a safetensors file; a pickle (.ckpt, .bin) can run code when it is read")
    stored = StoredTensors.open([file])
    try:
        options = stability.network_options(stored.shapes)
        network = _on_meta(options)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    ours = {there: here for here, there in stability.stability_names(network).items()}
    # An unknown weight keeps its name, by which it is reported.
    names = {name: ours.get(name, name) for name in stored if name.startswith(stability.PREFIX)}
    weights = stored.renamed(names)
    check_names(weights, network, file)
    return _published(options, weights, num_frames or (25 if "xt" in file.stem else 14), components, None)


def write_file(file: Path, network: SVDUNet, weights: Mapping[str, Tensor], rest_of: Path | None = None) -> None:
    """Write one of Stability's single files.

    Args:
        file: The file.
        network: The network, possibly on the meta device.
        weights: Its weights.
        rest_of: Another single file, from which autoencoder and image encoder are copied.

    Raises:
        ValueError: If ``rest_of`` can't be read.
    """
    names = stability.stability_names(network)
    rest = StoredTensors.open([rest_of] if rest_of else [])
    kept = {name: rest[name] for name in rest if not name.startswith(stability.PREFIX)}
    tensors = {**kept, **{names[name]: weights[name].contiguous() for name in names}}
    with appearing(file) as partial:
        save_tensors(tensors, partial, {"format": "pt"})


def write_folder(
    folder: Path,
    network: SVDUNet,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Any],
    components: Path,
    variant: Name | None,
) -> None:
    """Write a folder that ``diffusers.StableVideoDiffusionPipeline.from_pretrained`` opens.

    Args:
        folder: An empty folder.
        network: The network, possibly on the meta device.
        weights: Its weights.
        trained: Configuration of its run.
        components: Folder of a pipeline from which the other components are copied.
        variant: Variant of the files to copy; the copies get names without a variant.

    Raises:
        ValueError: If a component is missing in ``components``.
    """
    scheduler = components / "scheduler" / SCHEDULER_CONFIG
    FOLDER.write(
        folder,
        network_config(network, trained["clip"]["num_frames"]),
        {FOLDER.network: weights},
        read_json(scheduler) if scheduler.is_file() else SCHEDULER,
        components,
        variant,
    )


def network_options(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the arguments of ``SVDUNet`` that make the network of a ``config.json``.

    Raises:
        ValueError: If it describes a network of another class, or one that ``SVDUNet`` can't represent.
    """
    FOLDER.check_network(config, source)
    unet = typed(UNetConfig, config, source)
    time_ids, rest = divmod(unet.projection_class_embeddings_input_dim, unet.addition_time_embed_dim)
    if not unet.is_symmetric or unet.in_channels != 2 * unet.out_channels or rest:
        raise ValueError(
            f"{source}: networks whose way up differs from their way down, or whose image has other channels than"
            " the latents, are not supported"
        )
    heads = unet.num_attention_heads
    return {
        "channels": list(unet.block_out_channels),
        "in_channels": unet.out_channels,
        "num_heads": [heads] * len(unet.block_out_channels) if isinstance(heads, int) else list(heads),
        "num_blocks": same_at_every_level(unet.layers_per_block, "layers_per_block", source),
        "attention_levels": unet.attention_levels,
        "transformer_layers": same_at_every_level(
            unet.transformer_layers_per_block, "transformer_layers_per_block", source
        ),
        "context_channels": same_at_every_level(unet.cross_attention_dim, "cross_attention_dim", source),
        "time_id_channels": unet.addition_time_embed_dim,
        "num_time_ids": time_ids,
    }


def network_config(network: SVDUNet, num_frames: int) -> dict[str, Any]:
    """Return the ``config.json`` from which diffusers builds the same network.

    Args:
        network: The network.
        num_frames: Default number of frames that diffusers generates.
    """
    attends = [level in network.attention_levels for level in range(len(network.channels))]
    return {
        "_class_name": FOLDER.network_class,
        "in_channels": 2 * network.in_channels,
        "out_channels": network.in_channels,
        "down_block_types": [_block(attending, "Down") for attending in attends],
        "up_block_types": [_block(attending, "Up") for attending in reversed(attends)],
        "block_out_channels": list(network.channels),
        "addition_time_embed_dim": network.time_id_channels,
        "projection_class_embeddings_input_dim": network.num_time_ids * network.time_id_channels,
        "layers_per_block": network.num_blocks,
        "cross_attention_dim": network.context_channels,
        "transformer_layers_per_block": network.transformer_layers,
        "num_attention_heads": list(network.num_heads),
        "num_frames": num_frames,
    }


def _published(
    network: Mapping[str, Any], weights: StoredTensors, num_frames: int, components: str, variant: str | None
) -> Published:
    places = {"name_or_path": components, "variant": variant}
    settings = {
        "model": {"network": dict(network), "conditioner": {"image_encoder": places}},
        "encoder": places,
        "clip": {"num_frames": num_frames},
    }
    return Published(weights, settings)


def _on_meta(options: Mapping[str, Any]) -> SVDUNet:
    with torch.device("meta"):
        return SVDUNet(**options)


def _block(attending: bool, direction: str) -> str:
    return f"{'CrossAttn' if attending else ''}{direction}BlockSpatioTemporal"
