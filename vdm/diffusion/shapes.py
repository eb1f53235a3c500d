"""Types of tensors by shape, and functions between the shapes of levels, frames and latents."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

Level = Float[Tensor, "b *frames"]
"""A time, alpha, sigma or log-SNR: one number a clip (``b``), or one a latent frame (``b t``)."""
PerClip = Float[Tensor, " b"]
"""One number a clip."""
PerFrame = Float[Tensor, "b t"]
"""One number a latent frame."""
Counted = Bool[Tensor, "b t"]
"""True for frames that count in the loss. With one noise level a frame, the others are clean context."""
Latents = Float[Tensor, "b c t h w"]
Output = Float[Tensor, "b c_out t h w"]
"""Output of a network: as many channels as the latents, or twice as many if it learns variances too."""


def over_latents(level: Shaped[Tensor, "b *frames"]) -> Shaped[Tensor, "b 1 t_or_1 1 1"]:
    """Reshape one number a clip, or one a frame, so that it broadcasts over latents."""
    return level[:, None, None, None, None] if level.ndim == 1 else level[:, None, :, None, None]


def per_frame(level: Level, num_frames: int) -> Float[Tensor, "b t"]:
    """Return one number a frame; one number a clip is repeated."""
    return level if level.ndim == 2 else level[:, None].expand(-1, num_frames)


def mean_of_clips(latents: Latents, counted: Counted | None = None) -> PerClip:
    """Return the mean over each clip, or over its frames that count; 0 if none count."""
    if counted is None:
        return latents.flatten(1).mean(1)
    return mean_of_frames(latents.mean((1, 3, 4)), counted)


def mean_of_frames(values: Float[Tensor, "b t"], counted: Counted | None = None) -> PerClip:
    """Return the mean over the frames of each clip that count, by default all; 0 if none count."""
    if counted is None:
        return values.mean(1)
    # If no frame counts, the sum is 0, and with the clamped count the mean is 0 too.
    return torch.where(counted, values, 0).sum(1) / counted.sum(1).clamp(min=1)
