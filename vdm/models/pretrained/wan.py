"""Reading and writing Wan 2.1 and 2.2 as pipeline folders of diffusers.

Of Wan 2.2 these are A14B, with its two networks, and TI2V-5B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.models.component_config import read_component
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.experts import LOW, Boundary, TwoExperts
from vdm.models.pretrained import flow_schedulers, wan_image
from vdm.models.pretrained.diffusers_folder import SCHEDULER_CONFIG, weight_files
from vdm.models.pretrained.published import Published
from vdm.models.pretrained.stored import StoredTensors, check_names
from vdm.models.pretrained.wan_experts import SUBFOLDERS, by_subfolder, check_both, of_both
from vdm.models.pretrained.wan_format import FOLDER, NUM_TEXT_TOKENS, network_config, network_options
from vdm.outside import read_json, typed
from vdm.ranges import Location, Name

SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler",
    "flow_shift": 3.0,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "use_flow_sigmas": True,
}
"""As published with Wan2.1-T2V-1.3B; for folders that come without one."""
_CHANNELS = ("in_channels", "text_channels", "image_channels", "image_token_channels")
"""Arguments of a network, and its attributes, that the other components must fit."""
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
    check_names(of_low, _on_meta(options), second)
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
    scheduler_file, index = folder / "scheduler" / SCHEDULER_CONFIG, folder / "model_index.json"
    has_first_frame = typed(PipelineConfig, read_json(index), index).expand_timesteps
    _check_components(folder, options, has_first_frame)
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
    check_names(weights, _on_meta(options), source)
    texts = {**text_encoder, "max_tokens": NUM_TEXT_TOKENS}
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
        _check_components(components, {name: getattr(of_high, name) for name in _CHANNELS}, pipeline.expand_timesteps)
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


def _on_meta(options: Mapping[str, Any]) -> SpaceTimeTransformer:
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return SpaceTimeTransformer(**options)


def _check_components(folder: Path, network: Mapping[str, int], expand_timesteps: bool) -> None:
    """Refuse components that a network of these ``_CHANNELS`` can't be used with."""
    latents, text, of_images, of_image_tokens = (network.get(name, 0) for name in _CHANNELS)
    wan_image.check_components(folder, of_images, of_image_tokens, expand_timesteps)
    for component, name, value in (("vae", "z_dim", latents), ("text_encoder", "d_model", text)):
        found = getattr(read_component(folder / component), name)
        if found != value:
            file = folder / component / "config.json"
            raise ValueError(f"{file}: {name} is {found}, but the network needs {value}")
