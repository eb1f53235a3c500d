"""The variance-preserving stochastic differential equation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vdm.diffusion.schedules.linear_beta import LinearBeta
from vdm.diffusion.shapes import Level


@dataclass(frozen=True)
class VariancePreserving(LinearBeta):
    """``dx = -beta/2 x dt + sqrt(beta) dw`` (Song et al. 2021, eq. 11 and 33): DDPM in continuous time.

    With ``B`` the integral of beta, ``alpha^2 = exp(-B)`` and ``sigma^2 = 1 - exp(-B)``.
    """

    def log_snr(self, t: Level) -> Level:
        """Return ``-log(exp(B) - 1)``."""
        integral = self.integral(t)
        return -integral - torch.log(-torch.expm1(-integral))

    def integral_at_log_snr(self, log_snr: Level) -> Level:
        """Return ``B = log(1 + exp(-log_snr))``."""
        return F.softplus(-log_snr)
