"""What Wan's image-to-video pipelines have beside the text-to-video ones: an image encoder, and channels for frames.

Wan 2.1's networks attend to image tokens, of the first frame, or of the first and the last one (FLF2V). Those of Wan
2.2's A14B do not.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vdm.models.component_config import read_component
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.pretrained.diffusers_folder import PipelineFolder, pipeline_of

PIPELINE = "WanImageToVideoPipeline"
_IMAGE_ENCODER = "image_encoder"
_OF_IMAGES = {
    _IMAGE_ENCODER: ("transformers", "CLIPVisionModel"),
    "image_processor": ("transformers", "CLIPImageProcessor"),
}
_MASK_CHANNELS = 4
"""Channels of the mask of known frames: one for each frame that a latent frame stands for."""


def format_of(folder: Path, of_text: PipelineFolder) -> PipelineFolder:
    """Return the format of a pipeline's folder.

    Args:
        folder: The folder.
        of_text: The format of text-to-video pipelines.

    Raises:
        ValueError: If the folder holds no pipeline.
    """
    if pipeline_of(folder) != PIPELINE:
        return of_text
    pipeline = replace(of_text, pipeline=PIPELINE)
    if not has_image_encoder(folder):
        return pipeline
    return replace(
        pipeline, components={**of_text.components, **_OF_IMAGES}, stems={**of_text.stems, _IMAGE_ENCODER: "model"}
    )


def has_image_encoder(folder: Path) -> bool:
    """Return whether a pipeline's folder has an image encoder."""
    return (folder / _IMAGE_ENCODER).is_dir()


def network_options(
    source: object,
    in_channels: int,
    out_channels: int,
    image_dim: int | None,
    added_kv_proj_dim: int | None,
    num_positions: int | None,
    width: int,
) -> dict[str, Any]:
    """Return the arguments of ``SpaceTimeTransformer`` with which it is told known frames; none for text to video.

    Args:
        source: The network's ``config.json``, for messages.
        in_channels: Value there.
        out_channels: Value there, by default ``in_channels``.
        image_dim: Value there.
        added_kv_proj_dim: Value there.
        num_positions: ``pos_embed_seq_len`` there.
        width: Width of the network.

    Raises:
        ValueError: If they don't belong together.
    """
    channels, needed = in_channels - out_channels, _MASK_CHANNELS + out_channels
    if channels not in (0, needed):
        raise ValueError(
            f"{source}: in_channels={in_channels}, out_channels={out_channels}: must be equal, or, with channels for"
            f" known frames, {out_channels + needed} and {out_channels}"
        )
    if bool(image_dim) != bool(added_kv_proj_dim) or (added_kv_proj_dim or width) != width:
        raise ValueError(
            f"{source}: image_dim={image_dim}, added_kv_proj_dim={added_kv_proj_dim}: needs both or neither, the latter"
            f" {width}"
        )
    if not channels and image_dim:
        raise ValueError(f"{source}: image_dim={image_dim}: only networks with channels for known frames are supported")
    if not channels:
        return {}
    options = {"image_conditioned": True, "image_channels": channels}
    return {**options, "image_token_channels": image_dim or 0, "num_image_tokens": num_positions or 0}


def network_config(network: SpaceTimeTransformer) -> dict[str, Any]:
    """Return the keys of the network's ``config.json`` that say how it is told known frames.

    Raises:
        ValueError: If diffusers has no such network.
    """
    if network.image_channels not in (0, _MASK_CHANNELS + network.in_channels):
        raise ValueError(
            f"model.network.image_channels={network.image_channels}: Wan's pipelines have"
            f" {_MASK_CHANNELS + network.in_channels}; format=own has any"
        )
    tokens = network.image_token_channels
    return {
        "in_channels": network.in_channels + network.image_channels,
        "image_dim": tokens or None,
        "added_kv_proj_dim": network.num_heads * network.head_channels if tokens else None,
        "pos_embed_seq_len": network.num_image_tokens or None,
    }


def check_components(folder: Path, image_channels: int, image_token_channels: int, expand_timesteps: bool) -> None:
    """Refuse a pipeline's folder that a network can't be used with.

    Args:
        folder: The folder.
        image_channels: Channels in which the network is told known frames, 0 for none.
        image_token_channels: Width of the image tokens, 0 for none.
        expand_timesteps: Whether the pipeline gives the network a first frame in its place instead.

    Raises:
        ValueError: If the image encoder is missing or does not fit, or the pipeline is one for other networks.
    """
    index, is_of_images = folder / "model_index.json", pipeline_of(folder) == PIPELINE
    if bool(image_channels) != (is_of_images and not expand_timesteps):
        has = "has" if image_channels else "has no"
        raise ValueError(f"{index}: the network {has} channels for known frames, which does not fit this pipeline")
    if not image_token_channels:
        return
    if not has_image_encoder(folder):
        raise ValueError(f"{folder}: the component {_IMAGE_ENCODER} is missing")
    found = read_component(folder / _IMAGE_ENCODER).hidden_size
    if found != image_token_channels:
        file = folder / _IMAGE_ENCODER / "config.json"
        raise ValueError(f"{file}: hidden_size is {found}, but the network needs {image_token_channels}")


def conditioner(options: Mapping[str, Any], places: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``KnownFramesConditioner`` for a network; none for text to video.

    Args:
        options: Arguments of the network, from ``network_options``.
        places: Arguments that locate components.
    """
    if not options.get("image_channels"):
        return {}
    encoder = {"_target_": "vdm.models.clip_tokens.ClipTokenEncoder", **places}
    return {
        "image_encoder": encoder if options["image_token_channels"] else None,
        "pictures": "both_ends" if options["num_image_tokens"] else "first",
    }
