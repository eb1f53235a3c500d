"""What measures of likelihood have in common: pixels of 8 bits, and bits per dimension."""

import math
from collections.abc import Callable
from typing import Protocol

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.samplers.base import DrawNoise
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, PerClip

NUM_PIXEL_VALUES = 256
"""Of pixels of 8 bits, scaled to [-1, 1]."""
PIXEL_STEP = 2 / (NUM_PIXEL_VALUES - 1)
"""Distance of neighbouring values."""


class Likelihood(Protocol):
    """How many bits a pixel and channel would take if the model were used to compress clips."""

    @property
    def num_steps(self) -> int | None:
        """How often ``on_step`` is called; none where that is not known before."""
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
            denoise: The model, with conditions inside.
            x0: Clips of 8-bit pixels scaled to [-1, 1]: each value is one of 256.
            schedule: Signal and noise at each time.
            draw_noise: Independent standard normal noise in the shape of ``x0``.
            on_step: Called after each step.
        """
        ...


def bits_per_dim(nats: PerClip, x0: Latents) -> PerClip:
    """Return nats a clip as bits a dimension."""
    return nats / (x0[0].numel() * math.log(2))
