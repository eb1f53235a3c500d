"""Shapes that the whole of the mathematics speaks of."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

Level = Float[Tensor, "b *frames"]
"""A time, alpha, sigma or log-SNR: one number a clip (``b``), or one a latent frame (``b t``)."""
PerClip = Float[Tensor, " b"]
"""One number a clip."""
Counted = Bool[Tensor, "b t"]
"""Which frames count in the loss. Where noise levels are one a frame, the others are given clean, as context."""
Latents = Float[Tensor, "b c t h w"]
Output = Float[Tensor, "b c_out t h w"]
"""What a network says: as many channels as the latents have, or twice as many where it learns variances too."""


def over_latents(level: Shaped[Tensor, "b *frames"]) -> Shaped[Tensor, "b 1 t_or_1 1 1"]:
    """Shape one number a clip, or one a frame, so that it multiplies latents."""
    return level[:, None, None, None, None] if level.ndim == 1 else level[:, None, :, None, None]


def per_frame(level: Level, num_frames: int) -> Float[Tensor, "b t"]:
    """Return one number a frame, where there may be but one a clip."""
    return level if level.ndim == 2 else level[:, None].expand(-1, num_frames)


def mean_of_clips(latents: Latents, counted: Counted | None = None) -> PerClip:
    """Return the mean over each clip, or over those of its frames that count; 0 for a clip without any."""
    if counted is None:
        return latents.flatten(1).mean(1)
    return mean_of_frames(latents.mean((1, 3, 4)), counted)


def mean_of_frames(values: Float[Tensor, "b t"], counted: Counted | None = None) -> PerClip:
    """Return the mean over the frames of each clip that count, by default over all; 0 for a clip without any."""
    if counted is None:
        return values.mean(1)
    # Where nothing counts the sum is 0, and so is the mean.
    return torch.where(counted, values, 0).sum(1) / counted.sum(1).clamp(min=1)
