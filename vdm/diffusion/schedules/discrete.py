"""Schedules given by a table of betas, one for each of T timesteps.

In continuous time, ``t = k / T`` is timestep k, from 1 to T: the noise of the first k betas has been added. Libraries
that count from 0, such as diffusers, call it timestep k - 1. ``t = 0`` is clean data. Between timesteps, ``alpha^2``
and ``sigma^2`` are interpolated linearly, so that their sum is 1. Logarithms could not be interpolated: they are
infinite at ``t = 0``, where ``sigma = 0``, and with zero terminal SNR at ``t = 1``, where ``alpha = 0``.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import Between0And1, NotNegative, Size

Table = Float64[Tensor, " timesteps"]
"""One number for each timestep, on the CPU."""


def _line(start: float, end: float, num_points: int) -> Table:
    return torch.linspace(start, end, num_points, dtype=torch.float64, device="cpu")


def _check_ends(beta_start: float, beta_end: float) -> None:
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            "beta_start and beta_end must lie between 0 and 1, beta_start not above beta_end, but are "
            f"{beta_start} and {beta_end}"
        )


@dataclass(frozen=True)
class BetaTable(NoiseSchedule):
    """``alpha^2`` of timestep k is the product of ``1 - beta`` up to k (Ho et al. 2020, eq. 4).

    Args:
        num_timesteps: T.
        zero_terminal_snr: Shift and scale ``alpha`` so that the last timestep is pure noise and the first is unchanged
            (Lin et al. 2023, algorithm 1).
    """

    num_timesteps: Size = 1000
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        fewest = 2 if self.zero_terminal_snr else 1
        if self.num_timesteps < fewest:
            reason = " with zero_terminal_snr" if self.zero_terminal_snr else ""
            raise ValueError(f"num_timesteps must be at least {fewest}{reason}, but is {self.num_timesteps}")

    @abstractmethod
    def betas(self) -> Table:
        """Return the variance of the noise added in each timestep, in float64 on the CPU."""

    @cached_property
    def _alpha_squared_and_sigma_squared(self) -> Float64[Tensor, "2 timesteps"]:
        """``alpha^2`` and ``sigma^2`` at timesteps 0 to T."""
        alpha = torch.cumprod(1 - self.betas(), 0).sqrt()
        if self.zero_terminal_snr:
            alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        alpha_squared = torch.cat([alpha.new_ones(1), alpha**2])
        return torch.stack([alpha_squared, 1 - alpha_squared])

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        # Convert the type first, since the device may not support float64.
        table = self._alpha_squared_and_sigma_squared.to(t.dtype).to(t.device)
        place = (t * self.num_timesteps).clamp(0, self.num_timesteps)
        before = place.detach().floor().clamp(max=self.num_timesteps - 1)
        index = before.long()
        alpha_squared, sigma_squared = torch.lerp(table[:, index], table[:, index + 1], place - before)
        return torch.log(alpha_squared) - torch.log(sigma_squared)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value; clipped to [0, 1]."""
        alpha_squared, sigma_squared = self._alpha_squared_and_sigma_squared.to(log_snr.dtype).to(log_snr.device)
        # Interpolate the smaller of alpha^2 and sigma^2, which is the accurate one.
        by_alpha = _place(-alpha_squared, -torch.sigmoid(log_snr))
        by_sigma = _place(sigma_squared, torch.sigmoid(-log_snr))
        return torch.where(log_snr < 0, by_alpha, by_sigma) / self.num_timesteps


def _place(rising: Float[Tensor, " points"], value: Level) -> Level:
    """Return the fractional index of a value in an increasing table."""
    after = torch.searchsorted(rising, value).clamp(1, len(rising) - 1)
    before = after - 1
    return before + ((value - rising[before]) / (rising[after] - rising[before])).clamp(0, 1)


@dataclass(frozen=True)
class LinearBetas(BetaTable):
    """Linearly spaced betas (Ho et al. 2020, section 4).

    Args:
        num_timesteps: T.
        zero_terminal_snr: Make the last timestep pure noise (Lin et al. 2023, algorithm 1).
        beta_start: beta of the first timestep.
        beta_end: beta of the last timestep.
    """

    beta_start: Between0And1 = 1e-4
    beta_end: Between0And1 = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ends(self.beta_start, self.beta_end)

    def betas(self) -> Table:
        """Return the betas."""
        return _line(self.beta_start, self.beta_end, self.num_timesteps)


@dataclass(frozen=True)
class ScaledLinearBetas(BetaTable):
    """Betas with linearly spaced square roots (public code of latent diffusion, Rombach et al. 2022).

    Args:
        num_timesteps: T.
        zero_terminal_snr: Make the last timestep pure noise (Lin et al. 2023, algorithm 1).
        beta_start: beta of the first timestep.
        beta_end: beta of the last timestep.
    """

    beta_start: Between0And1 = 0.00085
    beta_end: Between0And1 = 0.012

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ends(self.beta_start, self.beta_end)

    def betas(self) -> Table:
        """Return the betas."""
        return _line(math.sqrt(self.beta_start), math.sqrt(self.beta_end), self.num_timesteps) ** 2


@dataclass(frozen=True)
class SquaredCosineBetas(BetaTable):
    """``alpha^2 = f(k / T) / f(0)`` with ``f(u) = cos^2((u + s) / (1 + s) pi / 2)`` (Nichol & Dhariwal 2021, eq. 17).

    Args:
        num_timesteps: T.
        zero_terminal_snr: Make the last timestep pure noise (Lin et al. 2023, algorithm 1).
        offset: s, which prevents too small betas near ``t = 0``.
        max_beta: Upper bound of the betas, which are largest near ``t = 1``.
    """

    offset: NotNegative = 0.008
    max_beta: Between0And1 = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offset < 0:
            raise ValueError(f"offset must be >= 0, but is {self.offset}")
        if not 0 < self.max_beta < 1:
            raise ValueError(f"max_beta must lie between 0 and 1, but is {self.max_beta}")

    def betas(self) -> Table:
        """Return the betas."""
        u = _line(0, 1, self.num_timesteps + 1)
        f = torch.cos((u + self.offset) / (1 + self.offset) * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=self.max_beta)
