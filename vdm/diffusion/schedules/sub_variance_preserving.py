"""The sub-variance-preserving stochastic differential equation."""

from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.linear_beta import LinearBeta
from vdm.diffusion.shapes import Level


@dataclass(frozen=True)
class SubVariancePreserving(LinearBeta):
    """``dx = -beta/2 x dt + sqrt(beta (1 - exp(-2B))) dw`` (Song et al. 2021, eq. 12), ``B`` the integral of beta.

    ``alpha = exp(-B/2)`` is that of the variance-preserving equation, but ``sigma = 1 - exp(-B)``, without a square
    root, is smaller (eq. 29). Hence ``alpha / sigma = 1 / (2 sinh(B/2))``.
    """

    def log_snr(self, t: Level) -> Level:
        """Return ``-2 log(2 sinh(B/2))``."""
        integral = self.integral(t)
        return -integral - 2 * torch.log(-torch.expm1(-integral))

    def integral_at_log_snr(self, log_snr: Level) -> Level:
        """Return ``B = 2 arsinh(exp(-log_snr / 2) / 2)``."""
        return 2 * torch.asinh(torch.exp(-log_snr / 2) / 2)

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha = exp(-B/2)`` and ``sigma = 1 - alpha^2``."""
        integral = self.integral_at_log_snr(log_snr)
        return torch.exp(-integral / 2), -torch.expm1(-integral)
