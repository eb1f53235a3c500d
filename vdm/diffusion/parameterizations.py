"""What the network predicts, and how that turns into clean latents.

Whatever it predicts is ``F = a x0 + b noise``, and the noised latents are ``xt = alpha x0 + sigma noise``: two lines,
from which ``x0`` follows as ``c_skip xt + c_out F`` (Karras et al. 2022, eq. 7), and so does any other prediction. The
factors are functions of ``alpha`` and ``sigma`` alone, so that any parameterization goes with any schedule and any
sampler. ``alpha^2 + sigma^2`` need not be 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch

from vdm.diffusion.schedules.base import log_snr
from vdm.diffusion.schedules.discrete import BetaTable
from vdm.diffusion.shapes import Latents, Level, over_latents
from vdm.ranges import Positive

_LOG_SNR_BOUND = 30.0
"""Beyond this, fp32 does not tell noise levels apart; it keeps pure noise and pure signal finite."""


class NoiseConditioning(Protocol):
    """How the network is told the noise level."""

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return one number for each noise level."""
        ...


@dataclass(frozen=True)
class LogSNR:
    """``log(alpha^2 / sigma^2)``, within bounds (Kingma et al. 2021; Ho et al. 2022)."""

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return log-SNR."""
        return log_snr(alpha, sigma).clamp(-_LOG_SNR_BOUND, _LOG_SNR_BOUND)


@dataclass(frozen=True)
class QuarterLogSigma:
    """``log(sigma / alpha) / 4``, within bounds (Karras et al. 2022, table 1)."""

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return a quarter of the logarithm of noise to signal."""
        return -log_snr(alpha, sigma).clamp(-_LOG_SNR_BOUND, _LOG_SNR_BOUND) / 8


@dataclass(frozen=True)
class Timestep:
    """The nearest timestep of a table of betas, counted from 0: networks trained on a table know no other number.

    Args:
        schedule: The table.
    """

    schedule: BetaTable

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return the timestep."""
        place = self.schedule.time(log_snr(alpha, sigma)) * self.schedule.num_timesteps
        return place.round().clamp(min=1) - 1


@dataclass(frozen=True)
class Parameterization(ABC):
    """How the network's input, its output and its noise-level embedding relate to latents.

    One of one's own defines ``target_factors``, and ``c_in`` where it differs.

    Args:
        c_noise: How the network is told the noise level.
    """

    c_noise: NoiseConditioning = LogSNR()

    @abstractmethod
    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return ``a`` and ``b``: the network should output ``a x0 + b noise``."""

    def target(self, x0: Latents, noise: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return what the network should output."""
        a, b = self.target_factors(alpha, sigma)
        return over_latents(a) * x0 + over_latents(b) * noise

    def determinant(self, alpha: Level, sigma: Level) -> Level:
        """Return ``a sigma - b alpha``: 0 where the output says no more about ``x0`` than ``xt`` does."""
        a, b = self.target_factors(alpha, sigma)
        return a * _above_zero(sigma) - b * alpha

    def skip_and_out(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return the factors of noised latents and of the network's output in ``x0``, by Cramer's rule."""
        a, b = self.target_factors(alpha, sigma)
        sigma = _above_zero(sigma)
        determinant = a * sigma - b * alpha
        return -b / determinant, sigma / determinant

    def c_skip(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of noised latents in ``x0``."""
        return self.skip_and_out(alpha, sigma)[0]

    def c_out(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of the network's output in ``x0``."""
        return self.skip_and_out(alpha, sigma)[1]

    def c_in(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of noised latents at the network's entrance: here, to unit variance for such data."""
        return torch.rsqrt(alpha**2 + sigma**2)

    def x0(self, prediction: Latents, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the clean latents that a network's output stands for."""
        c_skip, c_out = self.skip_and_out(alpha, sigma)
        return over_latents(c_skip) * xt + over_latents(c_out) * prediction


def _above_zero(sigma: Level) -> Level:
    """Keep quotients of two numbers in proportion to ``sigma`` defined where there is no noise."""
    return sigma.clamp(min=torch.finfo(sigma.dtype).tiny)


def converted(
    prediction: Latents, xt: Latents, alpha: Level, sigma: Level, source: Parameterization, target: Parameterization
) -> Latents:
    """Turn the output of a network of one parameterization into what one of another would have said.

    In one step: the way over ``x0`` would lose all digits of the noise where there is little of it. What is divided by
    is the source's determinant, 0 where its output does not tell: for ``X0`` where there is no noise, for ``Eps`` where
    there is no signal.

    Args:
        prediction: Output of a network under ``source``.
        xt: The noised latents it was given, before ``c_in``.
        alpha: Signal of each clip or frame.
        sigma: Noise of each clip or frame.
        source: What the network predicts.
        target: What is wanted.
    """
    (a, b), (a_wanted, b_wanted) = source.target_factors(alpha, sigma), target.target_factors(alpha, sigma)
    determinant = source.determinant(alpha, sigma)
    of_prediction = target.determinant(alpha, sigma) / determinant
    of_xt = (b_wanted * a - a_wanted * b) / determinant
    return over_latents(of_prediction) * prediction + over_latents(of_xt) * xt


def squared_error_ratio(source: Parameterization, target: Parameterization, alpha: Level, sigma: Level) -> Level:
    """Return the squared error of what ``target`` predicts for each unit of squared error of ``source``'s output.

    Infinite where the target can't be told from the source's output, see ``converted``.
    """
    return (target.determinant(alpha, sigma) / source.determinant(alpha, sigma)) ** 2


@dataclass(frozen=True)
class Eps(Parameterization):
    """The network predicts the noise (Ho et al. 2020, eq. 14): ``x0 = (xt - sigma F) / alpha``."""

    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return 0 and 1."""
        return torch.zeros_like(alpha), torch.ones_like(sigma)


@dataclass(frozen=True)
class X0(Parameterization):
    """The network predicts the clean latents."""

    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return 1 and 0."""
        return torch.ones_like(alpha), torch.zeros_like(sigma)


@dataclass(frozen=True)
class V(Parameterization):
    """The network predicts ``v = (alpha noise - sigma x0) / sqrt(alpha^2 + sigma^2)``.

    Salimans & Ho 2022, section 4 and appendix D, where the root is 1. At ``alpha = 1`` this is the preconditioning of
    Stable Video Diffusion: ``c_skip = 1 / (sigma^2 + 1)``, ``c_out = -sigma / sqrt(sigma^2 + 1)``.
    """

    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return ``-sigma`` and ``alpha``, on the unit circle."""
        length = torch.hypot(alpha, sigma)
        return -sigma / length, alpha / length


@dataclass(frozen=True)
class Velocity(Parameterization):
    """The network predicts ``noise - x0``, the velocity of straight paths (Liu et al. 2023, eq. 1; Esser et al. 2024).

    With ``alpha = 1 - t`` and ``sigma = t``, ``x0 = xt - t F``. The network sees ``xt`` as it is.
    """

    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return -1 and 1."""
        return -torch.ones_like(alpha), torch.ones_like(sigma)

    def c_in(self, alpha: Level, sigma: Level) -> Level:
        """Return 1."""
        return torch.ones_like(alpha)


@dataclass(frozen=True)
class EDM(Parameterization):
    """The network predicts F of Karras et al. 2022 (table 1, "ours"), here for any ``alpha``.

    ``c_skip = alpha sigma_data^2 / (sigma^2 + alpha^2 sigma_data^2)``,
    ``c_out = sigma sigma_data / sqrt(sigma^2 + alpha^2 sigma_data^2)``.

    Args:
        c_noise: How the network is told the noise level.
        sigma_data: Standard deviation of the clean latents.
    """

    c_noise: NoiseConditioning = QuarterLogSigma()
    sigma_data: Positive = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise ValueError(f"sigma_data must be > 0, but is {self.sigma_data}")

    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return ``c_in sigma / sigma_data`` and ``-c_in alpha sigma_data``."""
        c_in = self.c_in(alpha, sigma)
        return c_in * sigma / self.sigma_data, -c_in * alpha * self.sigma_data

    def c_in(self, alpha: Level, sigma: Level) -> Level:
        """Return ``1 / sqrt(sigma^2 + alpha^2 sigma_data^2)``: to unit variance."""
        return 1 / torch.hypot(sigma, alpha * self.sigma_data)
