"""Sinusoidal embeddings of numbers: noise levels, places of frames, sizes."""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_MAX_PERIOD = 10_000.0


def sinusoids(numbers: Float[Tensor, " n"], channels: int) -> Float[Tensor, "n d"]:
    """Return cosines, then sines, of each number at ``channels / 2`` frequencies (Vaswani et al. 2017, section 3.5).

    The result is fp32 whatever the precision of the weights.
    """
    half = channels // 2
    exponents = -math.log(_MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=numbers.device) / half
    angles = numbers[:, None].float() * exponents.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class EmbeddingMLP(nn.Module):
    """Two linear layers applied to sinusoids; parameters are named as in diffusers' ``TimestepEmbedding``."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, out_channels)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Embed each row."""
        return self.linear_2(F.silu(self.linear_1(x.to(self.linear_1.weight.dtype))))


class NumberEmbedding(nn.Module):
    """Sinusoids of a number, such as log-SNR or the index of a frame, then two linear layers.

    Args:
        channels: Width of the embedding.
        num_frequencies: Number of sine-cosine pairs; their periods are spaced geometrically.
    """

    frequencies: Tensor

    def __init__(self, channels: int, num_frequencies: int = 64) -> None:
        super().__init__()
        # log-SNR spans tens, frame indices span hundreds. Periods from 2 to 2000 resolve tenths of the former and
        # neighbouring values of the latter, and are monotonic over the whole range.
        periods = 2 * 1000 ** torch.linspace(0, 1, num_frequencies)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * num_frequencies, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Embed each number."""
        angles = numbers[:, None].float() * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.layers(features.to(cast(nn.Linear, self.layers[0]).weight.dtype))


def embedding_in_clip(embed: NumberEmbedding, num_frames: int, num_images: int) -> Float[Tensor, "1 t d"]:
    """Return the embedding of the index of each frame.

    It is zero where there is no position in time: for independent images, and for a clip of one frame.

    Args:
        embed: The embedding of numbers.
        num_frames: Frames, with the images.
        num_images: How many of the last frames are independent images.
    """
    index = torch.arange(num_frames, device=embed.frequencies.device)
    num_in_clip = num_frames - num_images if num_frames - num_images > 1 else 0
    return torch.where(index[:, None] < num_in_clip, embed(index.float()), 0)[None]
