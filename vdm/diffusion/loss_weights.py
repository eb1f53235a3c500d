"""Weights of the loss by noise level, as factors of the squared error of the network's own output.

Papers state them for the error of clean latents, of noise or of v; ``squared_error_ratio`` turns one into the other.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from vdm.diffusion.parameterizations import X0, Eps, Parameterization, squared_error_ratio
from vdm.diffusion.schedules.base import NoiseSchedule, log_snr
from vdm.diffusion.shapes import Level
from vdm.ranges import LogRatio, Positive
from vdm.types import NoisedLatents


class LossWeight(Protocol):
    """A factor of the loss of each clip, or of each frame where noise levels are one a frame."""

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the factor at each noise level."""
        ...


@dataclass(frozen=True)
class Simple:
    """The same weight at every level, for the squared error of what the network predicts (Ho et al. 2020, eq. 14).

    Under ``EDM`` this is the loss of Karras et al. 2022, whose weight makes the error of F count alike everywhere
    (table 1 and eq. 8); under ``Velocity``, that of rectified flow (Liu et al. 2023, eq. 1).
    """

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return 1."""
        return torch.ones_like(noised.alpha)


@dataclass(frozen=True)
class ErrorOf:
    """The squared error of what another parameterization predicts, whatever the network does.

    ``X0`` is the error of the clean latents, ``Eps`` of the noise (a factor of SNR more), ``V`` of v (SNR + 1: Salimans
    & Ho 2022, section 4), ``EDM`` the weight of Karras et al. 2022, ``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2``
    of the error of x0 (table 1), and ``Velocity`` that of rectified flow.

    Args:
        parameterization: That of the error.
        max_weight: Bound of the weight, which else has none for a network that predicts x0 and is judged by noise or v;
            Li & He 2025 bound ``1 / sigma`` by 20, hence the weight of their v by 400.
    """

    parameterization: Parameterization
    max_weight: Positive | None = None

    def __post_init__(self) -> None:
        if self.max_weight is not None and self.max_weight <= 0:
            raise ValueError(f"max_weight must be > 0, or null for no bound, but is {self.max_weight}")

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the squared error meant for each unit of squared error of the output."""
        weight = squared_error_ratio(parameterization, self.parameterization, noised.alpha, noised.sigma)
        return weight if self.max_weight is None else weight.clamp(max=self.max_weight)


@dataclass(frozen=True)
class MinSNR:
    """Weight ``min(SNR, gamma)`` of the squared error of x0 (Hang et al. 2023, eq. 10 and table of weights).

    Args:
        gamma: The signal-to-noise ratio above which the weight grows no more.
    """

    gamma: Positive = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be > 0, but is {self.gamma}")

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight, as one of the error of the output."""
        snr = (noised.alpha / noised.sigma) ** 2
        return snr.clamp(max=self.gamma) * squared_error_ratio(parameterization, X0(), noised.alpha, noised.sigma)


@dataclass(frozen=True)
class VLB:
    """The variational bound on the negative log-likelihood, in continuous time and in nats per dimension.

    ``-1/2 dSNR/dt`` of the squared error of x0, or ``-1/2 dlog-SNR/dt`` of that of the noise, under times uniform in
    [0, 1] (Kingma et al. 2021, eq. 17 to 19); then the expected loss depends on the schedule through its two ends alone
    (section 5.1). Under another distribution of times each noise level counts by its density too, and the loss is no
    bound: train on other noise levels by another schedule. The bound's other terms, of the prior and of the
    reconstruction, have no part of the network in them.
    """

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight, as one of the error of the output."""
        # By way of the noise, since SNR itself has more range than fp32.
        of_noise = squared_error_ratio(parameterization, Eps(), noised.alpha, noised.sigma)
        return -schedule.log_snr_slope(noised.t) / 2 * of_noise


@dataclass(frozen=True)
class SigmoidWeight:
    """The variational bound with weight ``sigmoid(bias - log-SNR)``: fine detail counts less.

    One of the weighted bounds of Kingma & Gao 2023, in the form of Hoogeboom et al. 2024 (SiD2, appendix): ``-1/2
    dlog-SNR/dt sigmoid(bias - log-SNR)`` of the squared error of the noise, which is ``-1/2 dlog-SNR/dt exp(bias)
    sigmoid(log-SNR - bias)`` of that of x0. As with ``VLB``, the expected loss does not depend on how the schedule gets
    from one end to the other if times are uniform.

    Args:
        bias: The log-SNR about which the weight falls; the less, the less detail counts.
    """

    bias: LogRatio = 0.0

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight, as one of the error of the output."""
        weight = torch.sigmoid(self.bias - log_snr(noised.alpha, noised.sigma))
        return weight * VLB()(noised, parameterization, schedule)
