"""Layers that ModelScope's text-to-video U-Net alone has, on activations laid out as ``b t h w c``.

Their parameters have the names and shapes of diffusers' ``UNet3DConditionModel``. Layers that Stable Video Diffusion's
U-Net has too are in ``vdm.models.diffusers_layers``.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import nn

from vdm.models.attention import Activations, zeroed
from vdm.models.blocks import ClipNorm, FrameNorm, TemporalConv
from vdm.models.diffusers_layers import Attention, BlockConditioning, SpatialBlock
from vdm.models.feed_forward import FeedForward, add_feed_forward


def over_time(layer: Callable[[Activations], Activations], x: Activations, num_images: int) -> Activations:
    """Apply a layer to a clip, and to each independent image that follows it as to a clip of one frame."""
    num_frames = x.shape[1] - num_images
    clip, images = x[:, :num_frames], rearrange(x[:, num_frames:], "b k h w c -> (b k) 1 h w c")
    if num_images == 0:
        return layer(clip)
    alone = rearrange(layer(images), "(b k) 1 h w c -> b k h w c", k=num_images)
    return alone if num_frames == 0 else torch.cat([layer(clip), alone], dim=1)


class TemporalConvs(nn.Module):
    """Residual block of four convolutions over time; its branch is zero at initialization.

    Args:
        channels: Width, a multiple of 32.
        dropout: Dropout probability before each convolution but the first.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(ClipNorm(channels, eps=1e-5), nn.SiLU(), TemporalConv(channels))
        self.conv2 = self._with_dropout(channels, dropout)
        self.conv3 = self._with_dropout(channels, dropout)
        self.conv4 = self._with_dropout(channels, dropout)
        zeroed(self.conv4[-1])

    def forward(self, x: Activations, conditioning: BlockConditioning) -> Activations:
        """Apply the block."""
        return x + over_time(self._branch, x, conditioning.num_images)

    def _branch(self, x: Activations) -> Activations:
        return self.conv4(self.conv3(self.conv2(self.conv1(x))))

    @staticmethod
    def _with_dropout(channels: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(ClipNorm(channels, eps=1e-5), nn.SiLU(), nn.Dropout(dropout), TemporalConv(channels))


class SpatialTransformer(nn.Module):
    """Transformer with attention within frames and cross-attention to the text.

    Args:
        channels: Width, a multiple of 32.
        num_heads: Number of attention heads; divides ``channels``.
        text_channels: Width of the text tokens.
    """

    def __init__(self, channels: int, num_heads: int, text_channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, num_heads, text_channels)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Activations, conditioning: BlockConditioning) -> Activations:
        """Apply the transformer."""
        h = self.proj_in(self.norm(x))
        return x + self.proj_out(self.transformer_blocks[0](h, conditioning.context, conditioning.context_bias))


class TemporalBlock(nn.Module):
    """Two layers of attention across frames and a feed-forward network, without positional encoding.

    Args:
        channels: Width.
        num_heads: Number of attention heads.
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
    """Transformer with attention across frames; activations are normalized over the whole clip.

    Args:
        channels: Width, a multiple of 32.
        num_heads: Number of attention heads.
        head_channels: Width of a head; ``num_heads * head_channels`` may differ from ``channels``.
    """

    def __init__(self, channels: int, num_heads: int, head_channels: int) -> None:
        super().__init__()
        inner = num_heads * head_channels
        self.norm = ClipNorm(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(inner, num_heads)])
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Activations, conditioning: BlockConditioning) -> Activations:
        """Apply the transformer."""
        return x + over_time(self._branch, x, conditioning.num_images)

    def _branch(self, x: Activations) -> Activations:
        return self.proj_out(self.transformer_blocks[0](self.proj_in(self.norm(x))))
