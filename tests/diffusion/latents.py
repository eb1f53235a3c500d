"""Latents and noise levels that the tests of the mathematics share."""

import torch
from torch import Tensor

from vdm.diffusion.schedules.cosine import Cosine
from vdm.randomness import normal


def random_latents(purpose: str, num_clips: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return small standard normal latents in ``b c t h w``, others for each purpose."""
    return normal(0, purpose, range(num_clips), (2, 3, 4, 5)).to(dtype)


def levels(num_clips: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma of log-SNR from -12 to 12."""
    return Cosine().at_log_snr(torch.linspace(-12, 12, num_clips, dtype=dtype))
