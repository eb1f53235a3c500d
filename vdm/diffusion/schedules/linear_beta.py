"""Linear beta(t), which two of the stochastic differential equations of Song et al. 2021 share."""

from abc import abstractmethod
from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import Positive


@dataclass(frozen=True)
class LinearBeta(NoiseSchedule):
    """``beta(t) = beta_min + t (beta_max - beta_min)`` (Song et al. 2021, appendix B and C).

    Args:
        beta_min: beta at ``t = 0``.
        beta_max: beta at ``t = 1``. DDPM's betas of 1e-4 to 0.02 in 1000 steps correspond to 0.1 to 20.
    """

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"beta_min and beta_max must be > 0, beta_min not above beta_max, but are {self.beta_min} and "
                f"{self.beta_max}"
            )

    def integral(self, t: Level) -> Level:
        """Return the integral of beta from 0 to ``t``."""
        return self.beta_min * t + (self.beta_max - self.beta_min) / 2 * t**2

    @abstractmethod
    def integral_at_log_snr(self, log_snr: Level) -> Level:
        """Return the integral of beta up to the time at which log-SNR has this value."""

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value; clipped to [0, 1]."""
        growth = self.beta_max - self.beta_min
        integral = self.integral_at_log_snr(log_snr).clamp(max=self.beta_min + growth / 2)
        # The quadratic equation's solution in the form without cancellation.
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * growth * integral))
