"""Noise schedules: how much signal and how much noise there is at time t."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class NoiseSchedule(Protocol):
    """Signal and noise at any time in [0, 1]; ``t = 0`` is data, ``t = 1`` is noise."""

    def alpha_sigma(self, t: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return the factors of clean latents and of noise at time ``t``."""
        ...


def alpha_sigma_of_log_snr(log_snr: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the variance-preserving ``alpha`` and ``sigma`` with ``log(alpha^2 / sigma^2) = log_snr``."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def log_snr(alpha: Float[Tensor, " b"], sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return ``log(alpha^2 / sigma^2)``."""
    return 2 * (alpha.log() - sigma.log())


@dataclass(frozen=True)
class Cosine:
    """The cosine schedule in continuous time, ``alpha = cos(pi t / 2)``, its log-SNR bounded at both ends.

    Nichol & Dhariwal 2021, eq. 17, in the form of Ho et al. 2022 (section 3 and appendix), where log-SNR runs from
    ``log_snr_max`` at ``t = 0`` to ``log_snr_min`` at ``t = 1`` as ``-2 log tan(a t + b)``.

    Args:
        log_snr_min: log-SNR at ``t = 1``, before the shift.
        log_snr_max: log-SNR at ``t = 0``, before the shift.
        log_snr_shift: Added to log-SNR at every time. Below 0 means more noise, as clips need that say the same in
            many pixels and frames (Hoogeboom et al. 2023, section 3.1).
    """

    log_snr_min: float = -20.0
    log_snr_max: float = 20.0
    log_snr_shift: float = 0.0

    def __post_init__(self) -> None:
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(
                f"log_snr_min must lie below log_snr_max, but is {self.log_snr_min} against {self.log_snr_max}"
            )

    def alpha_sigma(self, t: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return the factors of clean latents and of noise at time ``t``."""
        start = math.atan(math.exp(-self.log_snr_max / 2))
        end = math.atan(math.exp(-self.log_snr_min / 2))
        angle = start + (end - start) * t
        alpha, sigma = torch.cos(angle), torch.sin(angle) * math.exp(-self.log_snr_shift / 2)
        norm = torch.hypot(alpha, sigma)
        return alpha / norm, sigma / norm


@dataclass(frozen=True)
class Linear:
    """DDPM's schedule of linearly growing beta, in continuous time: ``log-SNR = -log(exp(1e-4 + 10 t^2) - 1)``.

    Ho et al. 2020 in the form of Kingma et al. 2021 (appendix, "linear" schedule).

    Args:
        beta_min: The constant under the exponential: the noise's variance at ``t = 0``, nearly.
        beta_slope: The factor of ``t^2`` under the exponential: half of beta's growth, per unit of time squared.
    """

    beta_min: float = 1e-4
    beta_slope: float = 10.0

    def __post_init__(self) -> None:
        if self.beta_min <= 0 or self.beta_slope <= 0:
            raise ValueError(f"beta_min and beta_slope must be > 0, but are {self.beta_min} and {self.beta_slope}")

    def alpha_sigma(self, t: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Return the factors of clean latents and of noise at time ``t``."""
        return alpha_sigma_of_log_snr(-torch.log(torch.expm1(self.beta_min + self.beta_slope * t**2)))
