"""Convolutions, normalizations and resampling of U-Nets, on activations laid out as ``b t h w c``."""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations


def frames_first(x: Activations) -> Float[Tensor, "bt c h w"]:
    """View activations as a batch of frames for 2-D layers: channels-last memory, nothing copied."""
    return rearrange(x, "b t h w c -> (b t) c h w")


def _differentiable(x: Float[Tensor, "n c h w"], norm: nn.GroupNorm) -> Float[Tensor, "n c h w"]:
    """Return the input of a normalization, as one that has a gradient if the weights have.

    On CPUs, PyTorch 2.13 crashes in the backward pass of weights whose channels-last input needs no gradient.
    """
    if torch.is_grad_enabled() and norm.weight.requires_grad and not x.requires_grad:
        return x.detach().requires_grad_()
    return x


class SpatialConv(nn.Conv2d):
    """A (1, 3, 3) convolution: over space, within each frame (Ho et al. 2022, section 3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, input: Activations) -> Float[Tensor, "b t h2 w2 c2"]:
        """Convolve each frame."""
        return rearrange(super().forward(frames_first(input)), "(b t) c h w -> b t h w c", b=input.shape[0])


class FrameNorm(nn.GroupNorm):
    """Group normalization with statistics of each frame, so that independent images stay independent."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(num_groups=math.gcd(32, channels), num_channels=channels, eps=eps)

    def forward(self, input: Activations) -> Activations:
        """Normalize each frame."""
        frames = _differentiable(frames_first(input), self)
        return rearrange(super().forward(frames), "(b t) c h w -> b t h w c", b=input.shape[0])


class ClipNorm(nn.GroupNorm):
    """Group normalization with statistics over all frames of a clip."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(num_groups=32, num_channels=channels, eps=eps)

    def forward(self, input: Activations) -> Activations:
        """Normalize each clip."""
        # Stack the frames into one tall picture, so that 2-D channels-last kernels apply without a copy.
        tall = _differentiable(rearrange(input, "b t h w c -> b c (t h) w"), self)
        return rearrange(super().forward(tall), "b c (t h) w -> b t h w c", t=input.shape[1])


class TemporalConv(nn.Conv3d):
    """A (3, 1, 1) convolution: over time, at each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=(3, 1, 1), padding=(1, 0, 0))

    def forward(self, input: Activations) -> Activations:
        """Convolve over time."""
        # View time as rows and pixels as columns of a picture, so that a 2-D channels-last kernel of 3x1 applies.
        picture = rearrange(input, "b t h w c -> b c t (h w)")
        convolved = F.conv2d(picture, self.weight[..., 0], self.bias, padding=(1, 0))
        return rearrange(convolved, "b c t (h w) -> b t h w c", h=input.shape[2])


class Downsample(nn.Module):
    """Halves height and width by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SpatialConv(channels, channels, stride=2)

    def forward(self, x: Activations) -> Float[Tensor, "b t h2 w2 c"]:
        """Halve height and width, rounding up."""
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles height and width by nearest-neighbour interpolation and a convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = SpatialConv(in_channels, out_channels)

    def forward(self, x: Activations, size: Sequence[int] | None = None) -> Float[Tensor, "b t h2 w2 c2"]:
        """Double height and width, or resize to ``size``, which is needed where an odd size was halved."""
        height, width = size or (2 * x.shape[2], 2 * x.shape[3])
        doubled = F.interpolate(frames_first(x), size=(height, width), mode="nearest")
        return self.conv(rearrange(doubled, "(b t) c h w -> b t h w c", b=x.shape[0]))
