"""Shapes that the whole of the mathematics speaks of."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Level = Float[Tensor, " b"]
"""One number a clip: a time, alpha, sigma or log-SNR."""
Latents = Float[Tensor, "b c t h w"]
Output = Float[Tensor, "b c_out t h w"]
"""What a network says: as many channels as the latents have, or twice as many where it learns variances too."""


def per_clip(level: Level) -> Float[Tensor, "b 1 1 1 1"]:
    """Shape one number a clip so that it multiplies latents."""
    return rearrange(level, "b -> b 1 1 1 1")
