"""Stored latents, read in place of pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

from vdm import randomness
from vdm.data.tensors import UnreadableTensorsError, read_tensors

LatentShape = tuple[int, int, int, int]
"""Channels, frames, rows, columns."""


class UnusableLatentsError(ValueError):
    """Bytes that are not the latents that the index describes."""


def read_latents(
    data: bytes | bytearray | memoryview, shape: LatentShape, seed: int, position: int | str
) -> Float[Tensor, "c t h w"]:
    """Return the clean latents of one clip, in the data type that they are stored in.

    They may share the memory of ``data``. If the posterior of the autoencoder was stored, they are sampled from it; the
    sample is a function of (seed, position).

    Args:
        data: A safetensors file; see ``vdm.data.shards.StoredLatents``.
        shape: Required shape of the latents.
        seed: Seed of the run.
        position: Place of the sample in the order of training.

    Raises:
        UnusableLatentsError: If it is damaged or of another shape.
    """
    try:
        tensors = read_tensors(data)
    except UnreadableTensorsError as error:
        raise UnusableLatentsError(f"its latents can't be read: {error}") from None
    mean, std = tensors.get("latents"), tensors.get("std")
    if mean is None:
        raise UnusableLatentsError("its latents lack the tensor 'latents'")
    for tensor in (mean, std):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise UnusableLatentsError(f"its latents have shape {tuple(tensor.shape)} where the index records {shape}")
    if std is None:
        return mean
    noise = torch.randn(shape, generator=randomness.generator(seed, "latents", position))
    return mean.float() + std.float() * noise
