"""Reading and writing Wan 2.1 and 2.2 as pipeline folders of diffusers.

Of Wan 2.2 these are A14B, with its two networks, and TI2V-5B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from vdm.models.component_config import Depth, read_component
from vdm.models.dit.embedders import NUM_SINUSOIDS
from vdm.models.dit.layers import EPS
from vdm.models.dit.transformer import Heads, SpaceTimeTransformer
from vdm.models.experts import LOW, Boundary, TwoExperts
from vdm.models.pretrained import flow_schedulers, wan_image
from vdm.models.pretrained.diffusers_folder import SCHEDULER_CONFIG, STEM, PipelineFolder, weight_files
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, check_names
from vdm.models.pretrained.wan_experts import SUBFOLDERS, by_subfolder, check_both, of_both
from vdm.outside import read_json, typed
from vdm.ranges import Location, Name, SizeOrZero, Width, WidthOrZero

FOLDER = PipelineFolder(
    "WanPipeline",
    {
        "transformer": ("diffusers", "WanTransformer3DModel"),
        "vae": ("diffusers", "AutoencoderKLWan"),
        "text_encoder": ("transformers", "UMT5EncoderModel"),
        "tokenizer": ("transformers", "T5TokenizerFast"),
        "scheduler": ("diffusers", "UniPCMultistepScheduler"),
    },
    {"vae": STEM, "text_encoder": "model"},
    network="transformer",
)
SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler",
    "flow_shift": 3.0,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "use_flow_sigmas": True,
}
"""As published with Wan2.1-T2V-1.3B; for folders that come without one."""
_NUM_TEXT_TOKENS = 512
"""Length to which Wan pads text with zeros, in its training and by default in its pipelines."""
FIRST_FRAME_CLEAN = {
    "diffusion": {
        "frame_levels": {
            "_target_": "vdm.diffusion.frame_levels.KnownFramesClean",
            "frames": {"_target_": "vdm.known_frames.FirstFrames", "min_frames": 1, "max_frames": 1},
            "probability": 0.5,
            "others": {"_target_": "vdm.diffusion.frame_levels.LevelPerClip"},
        }
    }
}
"""TI2V-5B makes videos with and without a given first frame."""
FIRST_FRAME_CLIP = {"num_frames": 121, "height": 704, "width": 1280, "fps": 24}
"""Size and speed of the videos of TI2V-5B, as published."""


@dataclass(frozen=True)
class PipelineConfig:
    """The keys that are read from ``model_index.json``, with the values that are supported."""

    boundary_ratio: Boundary | None = None
    transformer_2: list[str | None] | None = None
    expand_timesteps: bool = False
    """Whether the network can be given a clean first frame, whose tokens are told timestep 0."""


@dataclass(frozen=True)
class TransformerConfig:
    """The keys that are read from the network's ``config.json``, with the values that are supported."""

    num_layers: Depth
    num_attention_heads: Heads
    attention_head_dim: Heads
    ffn_dim: Width
    in_channels: Width
    text_dim: Width
    out_channels: Width | None = None
    patch_size: tuple[Literal[1], Width, Width] = (1, 2, 2)
    freq_dim: Literal[256] = 256
    cross_attn_norm: Literal[True] = True
    qk_norm: Literal["rms_norm_across_heads"] = "rms_norm_across_heads"
    eps: Annotated[float, Interval(ge=1e-6, le=1e-6)] = 1e-6
    image_dim: WidthOrZero | None = None
    added_kv_proj_dim: WidthOrZero | None = None
    pos_embed_seq_len: SizeOrZero | None = None


def open_folder(folder: Path, name: Location, variant: Name | None = None) -> Published:
    """Open a text-to-video pipeline's folder, or that of TI2V-5B, as diffusers writes it.

    Args:
        folder: The folder.
        name: Name to record in the run's configuration: the folder's path, or its name on the hub.
        variant: Variant of the weights in the file names, e.g. ``fp16``.

    Raises:
        ValueError: If it holds another pipeline, a file is missing, or components don't fit each other.
    """
    return _open(folder, name, variant, of_images=False)


def open_image_folder(folder: Path, name: Location, variant: Name | None = None) -> Published:
    """Open an image-to-video pipeline's folder whose network is told known frames; see ``open_folder``."""
    return _open(folder, name, variant, of_images=True)


def _open(folder: Path, name: Location, variant: Name | None, of_images: bool) -> Published:
    variant = wan_image.format_of(folder, FOLDER).check(folder, variant)
    index = folder / "model_index.json"
    pipeline = typed(PipelineConfig, read_json(index), index)
    check_both(pipeline.boundary_ratio, pipeline.transformer_2, index)
    config_file = folder / "transformer" / "config.json"
    options = network_options(read_json(config_file), config_file)
    weights = StoredTensors.open(weight_files(folder / "transformer", variant))
    if of_images != bool(options.get("image_channels")):
        model, has = ("wan_1_3b", "has no") if of_images else ("wan_i2v_14b", "has")
        raise ValueError(f"{config_file}: the network {has} channels for known frames: open it with model={model}")
    published = with_components(weights, options, folder / "transformer", folder, name, variant)
    if pipeline.boundary_ratio is None:
        return published
    second = folder / SUBFOLDERS[LOW]
    options = network_options(read_json(second / "config.json"), second / "config.json")
    of_low = StoredTensors.open(weight_files(second, variant))
    both = of_both(published, of_low, options, pipeline.boundary_ratio, folder)
    with torch.device("meta"):
        check_names(of_low, SpaceTimeTransformer(**options), second)
    return both


def with_components(
    weights: StoredTensors,
    options: Mapping[str, Any],
    source: Path,
    folder: Path,
    name: Location,
    variant: Name | None = None,
) -> Published:
    """Return a network and the settings of a run with the other components of a pipeline's folder.

    Args:
        weights: The network's weights.
        options: Arguments of ``SpaceTimeTransformer`` that make the network.
        source: File or folder of the weights, for messages.
        folder: The pipeline's folder.
        name: Name of that to record in the run's configuration.
        variant: Variant of the files of the other components.

    Raises:
        ValueError: If the weights are not those of the network, or a component is missing or does not fit it.
    """
    with torch.device("meta"):
        network = SpaceTimeTransformer(**options)
    scheduler_file, index = folder / "scheduler" / SCHEDULER_CONFIG, folder / "model_index.json"
    has_first_frame = typed(PipelineConfig, read_json(index), index).expand_timesteps
    _check_components(folder, network, has_first_frame)
    scheduler = flow_schedulers.read_scheduler(scheduler_file) if scheduler_file.is_file() else SCHEDULER
    places = {"name_or_path": name, "variant": variant}
    return published(
        weights,
        options,
        source,
        places,
        places,
        {
            **flow_schedulers.settings(scheduler, scheduler_file),
            "clip": FIRST_FRAME_CLIP if has_first_frame else {},
        },
        places,
        FIRST_FRAME_CLEAN if has_first_frame else {},
    )


def published(
    weights: StoredTensors,
    options: Mapping[str, Any],
    source: Path,
    encoder: Mapping[str, Any],
    text_encoder: Mapping[str, Any],
    settings: Mapping[str, Any],
    image_encoder: Mapping[str, Any],
    of_import: Mapping[str, Any],
) -> Published:
    """Return a network with the settings of a run.

    Args:
        weights: The network's weights.
        options: Arguments of ``SpaceTimeTransformer`` that make the network.
        source: File or folder of the weights, for messages.
        encoder: Where the autoencoder is.
        text_encoder: Where the text encoder is.
        settings: Further settings.
        image_encoder: Where the image encoder is, if the network attends to image tokens.
        of_import: See ``Published``.

    Raises:
        ValueError: If the weights are not those of the network.
    """
    with torch.device("meta"):
        network = SpaceTimeTransformer(**options)
    check_names(weights, network, source)
    texts = {**text_encoder, "max_tokens": _NUM_TEXT_TOKENS}
    conditioner = {"text_encoder": texts, **wan_image.conditioner(options, image_encoder)}
    model = {"network": options, "conditioner": conditioner}
    return Published(weights, {"encoder": encoder, "text_encoder": texts, "model": model, **settings}, of_import)


def write_folder(
    folder: Path,
    network: SpaceTimeTransformer | TwoExperts,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Any],
    components: Path,
    variant: Name | None,
) -> None:
    """Write a folder that ``from_pretrained`` of ``WanPipeline`` or ``WanImageToVideoPipeline`` in diffusers opens.

    Args:
        folder: An empty folder.
        network: The network, or both, possibly on the meta device.
        weights: Its weights.
        trained: Configuration of its run.
        components: Folder of a pipeline from which the other components are copied.
        variant: Variant of the files to copy; the copies get names without a variant.

    Raises:
        ValueError: If a component is missing or does not fit, or diffusers has no such network or scheduler.
    """
    of_high = network.high_noise if isinstance(network, TwoExperts) else network
    assert isinstance(of_high, SpaceTimeTransformer)
    config, index = network_config(of_high), components / "model_index.json"
    try:
        pipeline_folder = wan_image.format_of(components, FOLDER)
        pipeline_folder.check_around(components)
        pipeline = typed(PipelineConfig, read_json(index), index)
        _check_components(components, of_high, pipeline.expand_timesteps)
    except ValueError as error:
        raise ValueError(
            f"components: {error}: give the folder of a pipeline with the parts that the network was trained with, or"
            " format=own"
        ) from None
    file = components / "scheduler" / SCHEDULER_CONFIG
    published = flow_schedulers.read_scheduler(file) if file.is_file() else SCHEDULER
    scheduler = flow_schedulers.scheduler_config(trained["diffusion"], published)
    settings = {"boundary_ratio": None, "expand_timesteps": pipeline.expand_timesteps, "transformer_2": [None, None]}
    if isinstance(network, TwoExperts):
        settings["boundary_ratio"] = network.boundary
        networks = by_subfolder(weights)
    else:
        networks = {FOLDER.network: weights}
    pipeline_folder.write(folder, config, networks, scheduler, components, variant, settings)


def network_options(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the arguments of ``SpaceTimeTransformer`` that make the network of a ``config.json``.

    Raises:
        ValueError: If it describes a network of another class, or one of which there are no published weights.
    """
    FOLDER.check_network(config, source)
    transformer = typed(TransformerConfig, config, source)
    _, height, width = transformer.patch_size
    if height != width:
        raise ValueError(f"{source}: patch_size={list(transformer.patch_size)}: height and width must be equal")
    channels = transformer.out_channels or transformer.in_channels
    of_images = wan_image.network_options(
        source,
        transformer.in_channels,
        channels,
        transformer.image_dim,
        transformer.added_kv_proj_dim,
        transformer.pos_embed_seq_len,
        transformer.num_attention_heads * transformer.attention_head_dim,
    )
    return {
        "num_layers": transformer.num_layers,
        "num_heads": transformer.num_attention_heads,
        "head_channels": transformer.attention_head_dim,
        "hidden_channels": transformer.ffn_dim,
        "in_channels": channels,
        "patch_size": height,
        "text_channels": transformer.text_dim,
        "num_text_tokens": _NUM_TEXT_TOKENS,
        **of_images,
    }


def network_config(network: SpaceTimeTransformer) -> dict[str, Any]:
    """Return the ``config.json`` from which diffusers builds the same network.

    Raises:
        ValueError: If diffusers has no such network.
    """
    if network.vector_conditioned or network.num_text_tokens == 0:
        raise ValueError(
            "model.network: Wan's pipelines have no network with vector_conditioned=true or num_text_tokens=0;"
            " format=own has"
        )
    return {
        "_class_name": FOLDER.network_class,
        "num_layers": len(network.blocks),
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.head_channels,
        "ffn_dim": network.hidden_channels,
        "out_channels": network.in_channels,
        "text_dim": network.text_channels,
        "patch_size": [1, network.patch_size, network.patch_size],
        "freq_dim": NUM_SINUSOIDS,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": EPS,
        "rope_max_seq_len": 1024,
        **wan_image.network_config(network),
    }


def _check_components(folder: Path, network: SpaceTimeTransformer, expand_timesteps: bool) -> None:
    """Refuse components that the network can't be used with."""
    wan_image.check_components(folder, network.image_channels, network.image_token_channels, expand_timesteps)
    for component, name, value in (
        ("vae", "z_dim", network.in_channels),
        ("text_encoder", "d_model", network.text_channels),
    ):
        found = getattr(read_component(folder / component), name)
        if found != value:
            file = folder / component / "config.json"
            raise ValueError(f"{file}: {name} is {found}, but the network needs {value}")
