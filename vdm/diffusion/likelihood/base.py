"""Interface of a likelihood, for clips of 8-bit pixels, in bits per dimension."""

import math
from collections.abc import Callable
from typing import Protocol

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.samplers.base import DrawNoise
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, PerClip

NUM_PIXEL_VALUES = 256
"""Number of values of an 8-bit pixel, which are scaled to [-1, 1]."""
PIXEL_STEP = 2 / (NUM_PIXEL_VALUES - 1)
"""Distance between neighbouring values."""


class Likelihood(Protocol):
    """Negative log-likelihood in bits per dimension, where each channel of each pixel is a dimension."""

    @property
    def num_steps(self) -> int | None:
        """Number of calls of ``on_step``; None if it is not known in advance."""
        ...

    def __call__(
        self,
        denoise: Denoise,
        x0: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: Callable[[], object] | None = None,
    ) -> PerClip:
        """Return the bits per dimension of each clip, in float64 on the CPU.

        Args:
            denoise: The model, including its conditions.
            x0: Clips of 8-bit pixels, whose 256 values are scaled to [-1, 1].
            schedule: Signal and noise at each time.
            draw_noise: Independent standard normal noise in the shape of ``x0``.
            on_step: Called after each step.
        """
        ...


def bits_per_dim(nats: PerClip, x0: Latents) -> PerClip:
    """Convert nats per clip to bits per dimension."""
    return nats / (x0[0].numel() * math.log(2))
