"""Parameterizations: the target of the network's prediction, and its conversion to clean latents.

The network predicts ``F = a x0 + b noise``, and noised latents are ``xt = alpha x0 + sigma noise``. From these two
linear equations follow ``x0 = c_skip xt + c_out F`` (Karras et al. 2022, eq. 7), and any other prediction. The factors
depend on ``alpha`` and ``sigma`` alone, so every parameterization works with every schedule and sampler. ``alpha^2 +
sigma^2`` need not be 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch

from vdm.diffusion.schedules.base import log_snr
from vdm.diffusion.schedules.discrete import BetaTable
from vdm.diffusion.shapes import Latents, Level, over_latents
from vdm.ranges import Count, Positive

_LOG_SNR_BOUND = 30.0
"""Bound of log-SNR that keeps pure noise and pure signal finite; beyond it fp32 does not resolve noise levels."""


class NoiseConditioning(Protocol):
    """``c_noise``: the number by which the network is conditioned on the noise level."""

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return one number for each noise level."""
        ...


@dataclass(frozen=True)
class LogSNR:
    """``log(alpha^2 / sigma^2)``, clipped (Kingma et al. 2021; Ho et al. 2022)."""

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return log-SNR."""
        return log_snr(alpha, sigma).clamp(-_LOG_SNR_BOUND, _LOG_SNR_BOUND)


@dataclass(frozen=True)
class QuarterLogSigma:
    """``log(sigma / alpha) / 4``, clipped (Karras et al. 2022, table 1)."""

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return ``log(sigma / alpha) / 4``."""
        return -log_snr(alpha, sigma).clamp(-_LOG_SNR_BOUND, _LOG_SNR_BOUND) / 8


@dataclass(frozen=True)
class Timestep:
    """The nearest timestep of a table of betas, counted from 0, for networks that were trained with such a table.

    Args:
        schedule: The table of betas.
    """

    schedule: BetaTable

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return the timestep."""
        place = self.schedule.time(log_snr(alpha, sigma)) * self.schedule.num_timesteps
        return place.round().clamp(min=1) - 1


@dataclass(frozen=True)
class FlowTimestep:
    """``num_timesteps sigma / (alpha + sigma)``: the time of rectified flow, in timesteps.

    Args:
        num_timesteps: Timestep of pure noise.
        whole: Whether timesteps are rounded down to whole numbers, as by the solvers of Wan and of diffusers.
    """

    num_timesteps: Count = 1000
    whole: bool = False

    def __call__(self, alpha: Level, sigma: Level) -> Level:
        """Return the timestep."""
        timestep = self.num_timesteps * sigma / (alpha + sigma)
        # fp32 may give 899.9999 for 900.
        return torch.floor(timestep + 1e-7 * self.num_timesteps) if self.whole else timestep


@dataclass(frozen=True)
class Parameterization(ABC):
    """Relation of the network's input, output and noise conditioning to latents.

    Subclasses define ``target_factors``, and ``c_in`` if it differs.

    Args:
        c_noise: The number by which the network is conditioned on the noise level.
    """

    c_noise: NoiseConditioning = LogSNR()

    @abstractmethod
    def target_factors(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return ``a`` and ``b`` of the target ``a x0 + b noise``."""

    def target(self, x0: Latents, noise: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the target of the network's output, ``a x0 + b noise``."""
        a, b = self.target_factors(alpha, sigma)
        return over_latents(a) * x0 + over_latents(b) * noise

    def determinant(self, alpha: Level, sigma: Level) -> Level:
        """Return ``a sigma - b alpha``; 0 if target and ``xt`` are proportional, so that ``x0`` can't be recovered."""
        a, b = self.target_factors(alpha, sigma)
        return a * _above_zero(sigma) - b * alpha

    def skip_and_out(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Return ``c_skip`` and ``c_out`` of ``x0 = c_skip xt + c_out F``, by Cramer's rule."""
        a, b = self.target_factors(alpha, sigma)
        sigma = _above_zero(sigma)
        determinant = a * sigma - b * alpha
        return -b / determinant, sigma / determinant

    def c_skip(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of the noised latents in ``x0``."""
        return self.skip_and_out(alpha, sigma)[0]

    def c_out(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of the network's output in ``x0``."""
        return self.skip_and_out(alpha, sigma)[1]

    def c_in(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of the network's input; this default gives unit variance for data of unit variance."""
        return torch.rsqrt(alpha**2 + sigma**2)

    def x0(self, prediction: Latents, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the clean latents that follow from a network's output."""
        c_skip, c_out = self.skip_and_out(alpha, sigma)
        return over_latents(c_skip) * xt + over_latents(c_out) * prediction


def _above_zero(sigma: Level) -> Level:
    """Replace 0 by the smallest positive number, so that quotients of multiples of ``sigma`` are defined."""
    return sigma.clamp(min=torch.finfo(sigma.dtype).tiny)


def converted(
    prediction: Latents, xt: Latents, alpha: Level, sigma: Level, source: Parameterization, target: Parameterization
) -> Latents:
    """Convert a prediction from one parameterization to another.

    The conversion is direct, since going through ``x0`` would lose all digits of the noise at low noise levels. It
    divides by the determinant of the source, which is 0 where the target can't be recovered: for ``X0`` without noise,
    for ``Eps`` without signal.

    Args:
        prediction: Output of a network under ``source``.
        xt: Its noised latents, before ``c_in``.
        alpha: Signal of each clip or frame.
        sigma: Noise of each clip or frame.
        source: Parameterization of ``prediction``.
        target: Parameterization of the result.
    """
    (a, b), (a_wanted, b_wanted) = source.target_factors(alpha, sigma), target.target_factors(alpha, sigma)
    determinant = source.determinant(alpha, sigma)
    of_prediction = target.determinant(alpha, sigma) / determinant
    of_xt = (b_wanted * a - a_wanted * b) / determinant
    return over_latents(of_prediction) * prediction + over_latents(of_xt) * xt


def squared_error_ratio(source: Parameterization, target: Parameterization, alpha: Level, sigma: Level) -> Level:
    """Return the squared error of a prediction under ``target`` per unit of squared error under ``source``.

    Infinite where the target can't be recovered from the source; see ``converted``.
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
    """The network predicts F of Karras et al. 2022 (table 1, "ours"), generalized to any ``alpha``.

    ``c_skip = alpha sigma_data^2 / (sigma^2 + alpha^2 sigma_data^2)``,
    ``c_out = sigma sigma_data / sqrt(sigma^2 + alpha^2 sigma_data^2)``.

    Args:
        c_noise: The number by which the network is conditioned on the noise level.
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
        """Return ``1 / sqrt(sigma^2 + alpha^2 sigma_data^2)``, which gives unit variance."""
        return 1 / torch.hypot(sigma, alpha * self.sigma_data)
