"""The variance-exploding stochastic differential equation."""

import math
from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import Positive


@dataclass(frozen=True)
class VarianceExploding(NoiseSchedule):
    """``alpha = 1`` and ``sigma = sigma_min (sigma_max / sigma_min)^t`` (Song et al. 2021, eq. 9 and 31).

    Karras et al. 2022 (EDM) have the same ``alpha`` and use ``sigma`` itself as time; here time is linear in its
    logarithm. Noise levels below ``sigma_min`` or above ``sigma_max`` are valid and have times outside of [0, 1].

    Args:
        sigma_min: Standard deviation of the noise at ``t = 0``, in the unit of the latents.
        sigma_max: Standard deviation of the noise at ``t = 1``: 80 in EDM, 700 in Stable Video Diffusion.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min must be > 0 and below sigma_max, but is {self.sigma_min} against {self.sigma_max}"
            )

    def log_snr(self, t: Level) -> Level:
        """Return ``-2 log sigma``."""
        return -2 * (math.log(self.sigma_min) + math.log(self.sigma_max / self.sigma_min) * t)

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return 1 and ``exp(-log_snr / 2)``."""
        return torch.ones_like(log_snr), torch.exp(-log_snr / 2)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value; it may lie outside of [0, 1]."""
        return (-log_snr / 2 - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)
