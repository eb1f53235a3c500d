"""Running frozen encoders, which each process loads once."""

import json
from collections.abc import Mapping
from functools import lru_cache
from multiprocessing import current_process
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from safetensors.torch import save

from data_pipelines.settings import Precision
from vdm.config import ConfigError, build
from vdm.data.shards import Shape
from vdm.data.text_embeddings import TextEmbedding
from vdm.models.frozen import Frozen
from vdm.types import ClipSize


@lru_cache(maxsize=2)
def load_encoder(node: str, key: str) -> Any:
    """Build an encoder on the device of this process.

    Args:
        node: Its configuration, as JSON.
        key: Its key, for messages.

    Raises:
        ConfigError: In one line, if it can't be loaded, or is not frozen.
    """
    if current_process().daemon:  # a worker process; there is one for each core
        torch.set_num_threads(1)
    encoder = build(json.loads(node), key)
    if not isinstance(encoder, Frozen):
        raise ConfigError(f"{key}: {type(encoder).__name__} is no frozen encoder, whose results could be stored")
    return encoder.to(device())


def device() -> torch.device:
    """Return the GPU of this process, chosen by its number among the workers; the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = current_process().name.rpartition("-")[2]
    return torch.device("cuda", (int(number) if number.isdigit() else 0) % torch.cuda.device_count())


def describe(node: str, key: str) -> Mapping[str, Any]:
    """Return the identity of an encoder and its readable name."""
    return {**load_encoder(node, key).identity(), "name": json.loads(node).get("name_or_path")}


def latent_shape(node: str, shape: Shape) -> tuple[int, int, int, int]:
    """Return channels, frames, rows and columns of the latents of clips of this shape.

    Raises:
        ConfigError: In one line, if the autoencoder does not take such clips.
    """
    try:
        return load_encoder(node, "encoder").latent_shape(ClipSize(*shape))
    except ValueError as error:
        raise ConfigError(f"clip.{error}") from None


def encode_clip(node: str, video: UInt8[np.ndarray, "t h w c"], precision: Precision) -> bytes:
    """Return the content of a ``.latents.safetensors``."""
    frames = rearrange(torch.from_numpy(video), "t h w c -> 1 c t h w").to(device())
    latents = load_encoder(node, "encoder").encode(frames)[0]
    return save({"latents": latents.to("cpu", getattr(torch, precision)).contiguous()})


def embed_caption(node: str, caption: str, precision: Precision) -> TextEmbedding:
    """Return the embedding of a caption, without padding."""
    tokens, mask, pooled = load_encoder(node, "text_encoder")([caption])
    tensors = (one.to("cpu", getattr(torch, precision)).contiguous() for one in (tokens[0][mask[0]], pooled[0]))
    return TextEmbedding(*tensors)
