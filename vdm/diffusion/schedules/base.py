"""Base class of noise schedules: log-SNR as a function of time, and (alpha, sigma) as a function of log-SNR."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vdm.diffusion.shapes import Level


def log_snr(alpha: Level, sigma: Level) -> Level:
    """Return ``log(alpha^2 / sigma^2)``."""
    return 2 * (alpha.log() - sigma.log())


class NoiseSchedule(ABC):
    """Signal and noise at any time; ``t = 0`` is data, ``t = 1`` is noise.

    Subclasses define ``log_snr``, and also ``at_log_snr`` if they do not preserve variance. Everything else, such as
    the stochastic differential equation with these marginals, follows.
    """

    @abstractmethod
    def log_snr(self, t: Level) -> Level:
        """Return ``log(alpha^2 / sigma^2)`` at time ``t``: decreasing, differentiable, possibly infinite at 0 and 1."""

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha`` and ``sigma`` at any log-SNR; here with ``alpha^2 + sigma^2 = 1``."""
        # Square roots of sigmoids, in a form whose derivative is accurate where alpha is nearly 1.
        return torch.exp(F.logsigmoid(log_snr) / 2), torch.exp(F.logsigmoid(-log_snr) / 2)

    def alpha_sigma(self, t: Level) -> tuple[Level, Level]:
        """Return the factors of clean latents and of noise at time ``t``."""
        return self.at_log_snr(self.log_snr(t))

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value, by bisection; clipped to [0, 1].

        A schedule that extends beyond [0, 1] may return times there.
        """
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(64):
            middle = (low + high) / 2
            noisier = self.log_snr(middle) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return (low + high) / 2

    def log_snr_slope(self, t: Level) -> Level:
        """Return the derivative of log-SNR with respect to time, which is negative. Undefined for infinite log-SNR."""
        return _slope(self.log_snr, t)

    def drift_diffusion(self, t: Level) -> tuple[Level, Level]:
        """Return ``f`` and ``g^2`` of ``dx = f x dt + g dw``, the diffusion with these marginals.

        ``f = d log alpha / dt`` and ``g^2 = d sigma^2 / dt - 2 f sigma^2`` (Kingma et al. 2021, eq. 19 and 20; Song et
        al. 2021, section 3.4), which is ``-sigma^2 d log-SNR / dt``. Undefined where log-SNR is infinite.
        """
        drift = _slope(lambda t: self.alpha_sigma(t)[0].log(), t)
        return drift, -(self.alpha_sigma(t)[1] ** 2) * self.log_snr_slope(t)


def _slope(function: Callable[[Tensor], Tensor], t: Level) -> Level:
    """Return the derivative of an elementwise function at each ``t``."""
    # torch.func.jvp would take seconds to compile at its first call.
    with torch.inference_mode(False), torch.enable_grad():
        t = t.clone().detach().requires_grad_()
        values = function(t)
        if not values.requires_grad:  # a constant
            return torch.zeros_like(t)
        return torch.autograd.grad(values.sum(), t)[0]
