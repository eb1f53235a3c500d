"""Layers of ModelScope's text-to-video U-Net that Stable Video Diffusion's does not have.

Their parameters have the names and shapes of diffusers' ``UNet3DConditionModel``. What both networks have in common
lies in ``vdm.models.svd.layers``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.models.attention import Activations, zeroed
from vdm.models.blocks import ClipNorm, FrameNorm, TemporalConv
from vdm.models.feed_forward import FeedForward, add_feed_forward
from vdm.models.svd.layers import Attention, SpatialBlock, Tokens


@dataclass(frozen=True)
class TextGuide:
    """What every block is told beside the activations."""

    embedding: Float[Tensor, "b *frames d"]
    """Of the noise level of each clip, or of each frame, after the activation that every block begins with."""
    tokens: Tokens
    """Of the text."""
    hidden: Float[Tensor, "..."] | None = None
    """Added to the scores of tokens: minus infinity for those that are padding; none where all count."""
    num_images: int = 0
    """How many of the last frames are independent images: clips of one frame to layers over time."""


def over_time(layer: Callable[[Activations], Activations], x: Activations, num_images: int) -> Activations:
    """Apply a layer to a clip, and to each of the images behind it as to a clip of one frame."""
    num_frames = x.shape[1] - num_images
    clip, images = x[:, :num_frames], rearrange(x[:, num_frames:], "b k h w c -> (b k) 1 h w c")
    if num_images == 0:
        return layer(clip)
    alone = rearrange(layer(images), "(b k) 1 h w c -> b k h w c", k=num_images)
    return alone if num_frames == 0 else torch.cat([layer(clip), alone], dim=1)


class TemporalConvs(nn.Module):
    """Four convolutions over time in a row, added to what they are given; they begin by adding nothing.

    Args:
        channels: Width, a multiple of 32.
        dropout: Share of activations dropped in training, before each convolution but the first.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(ClipNorm(channels, eps=1e-5), nn.SiLU(), TemporalConv(channels))
        self.conv2 = self._with_dropout(channels, dropout)
        self.conv3 = self._with_dropout(channels, dropout)
        self.conv4 = self._with_dropout(channels, dropout)
        zeroed(self.conv4[-1])

    def forward(self, x: Activations, guide: TextGuide) -> Activations:
        """Apply the block."""
        return x + over_time(self._branch, x, guide.num_images)

    def _branch(self, x: Activations) -> Activations:
        return self.conv4(self.conv3(self.conv2(self.conv1(x))))

    @staticmethod
    def _with_dropout(channels: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(ClipNorm(channels, eps=1e-5), nn.SiLU(), nn.Dropout(dropout), TemporalConv(channels))


class SpatialTransformer(nn.Module):
    """Attention within frames and to the text, on top of normalized activations.

    Args:
        channels: Width, a multiple of 32.
        num_heads: Heads of each attention; divides ``channels``.
        text_channels: Width of the text's tokens.
    """

    def __init__(self, channels: int, num_heads: int, text_channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, num_heads, text_channels)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Activations, guide: TextGuide) -> Activations:
        """Apply the transformer."""
        h = self.proj_in(self.norm(x))
        return x + self.proj_out(self.transformer_blocks[0](h, guide.tokens, guide.hidden))


class TwiceOverTime(nn.Module):
    """Attention among frames twice, then a feed-forward network; nothing tells the order of frames.

    Args:
        channels: Width.
        num_heads: Heads of each attention.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, num_heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Activations) -> Activations:
        """Apply the block."""
        x = x + self.attn1.over_time(self.norm1(x))
        x = x + self.attn2.over_time(self.norm2(x))
        return add_feed_forward(x, self.norm3, self.ff)


class TemporalTransformer(nn.Module):
    """Attention among frames, on top of activations that are normalized over whole clips.

    Args:
        channels: Width, a multiple of 32.
        num_heads: Heads of each attention.
        head_channels: Width of a head; all heads together need not be as wide as the activations.
    """

    def __init__(self, channels: int, num_heads: int, head_channels: int) -> None:
        super().__init__()
        inner = num_heads * head_channels
        self.norm = ClipNorm(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TwiceOverTime(inner, num_heads)])
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Activations, guide: TextGuide) -> Activations:
        """Apply the transformer."""
        return x + over_time(self._branch, x, guide.num_images)

    def _branch(self, x: Activations) -> Activations:
        return self.proj_out(self.transformer_blocks[0](self.proj_in(self.norm(x))))
