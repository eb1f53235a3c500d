"""Loss weights by noise level, as factors of the squared error of the network's output.

Papers state them for the error of clean latents, of noise or of v; ``squared_error_ratio`` converts between these.
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
    """Weight of the loss of each clip, or of each frame if there is one noise level a frame."""

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight at each noise level."""
        ...


@dataclass(frozen=True)
class Simple:
    """The squared error of the network's output with weight 1 at every noise level (Ho et al. 2020, eq. 14).

    Under ``EDM`` this is the loss of Karras et al. 2022, which weights the error of F uniformly (table 1 and eq. 8).
    Under ``Velocity`` it is that of rectified flow (Liu et al. 2023, eq. 1).
    """

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return 1."""
        return torch.ones_like(noised.alpha)


@dataclass(frozen=True)
class ErrorOf:
    """The squared error of the prediction converted to another parameterization, whatever the network predicts.

    ``X0`` is the error of the clean latents. Relative to it, the error of the noise (``Eps``) has weight SNR, and that
    of v (``V``) has weight SNR + 1 (Salimans & Ho 2022, section 4). ``EDM`` gives the weight of Karras et al. 2022
    (table 1), ``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2``, and ``Velocity`` that of rectified flow.

    Args:
        parameterization: Parameterization whose error is taken.
        max_weight: Bound of the weight. Without it, the weight is unbounded for a network that predicts x0 and the
            error of noise or v. Li & He 2025 bound ``1 / sigma`` by 20, and so the weight of their v by 400.
    """

    parameterization: Parameterization
    max_weight: Positive | None = None

    def __post_init__(self) -> None:
        if self.max_weight is not None and self.max_weight <= 0:
            raise ValueError(f"max_weight must be > 0, or null for no bound, but is {self.max_weight}")

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight of the output's squared error."""
        weight = squared_error_ratio(parameterization, self.parameterization, noised.alpha, noised.sigma)
        return weight if self.max_weight is None else weight.clamp(max=self.max_weight)


@dataclass(frozen=True)
class MinSNR:
    """Weight ``min(SNR, gamma)`` of the squared error of x0 (Hang et al. 2023, eq. 10 and table of weights).

    Args:
        gamma: Signal-to-noise ratio above which the weight is constant.
    """

    gamma: Positive = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be > 0, but is {self.gamma}")

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight of the output's squared error."""
        snr = (noised.alpha / noised.sigma) ** 2
        return snr.clamp(max=self.gamma) * squared_error_ratio(parameterization, X0(), noised.alpha, noised.sigma)


@dataclass(frozen=True)
class VLB:
    """The variational bound on the negative log-likelihood, in continuous time and in nats per dimension.

    Weight ``-1/2 dSNR/dt`` of the squared error of x0, or ``-1/2 dlog-SNR/dt`` of that of the noise, with times uniform
    in [0, 1] (Kingma et al. 2021, eq. 17 to 19). The expected loss then depends on the schedule only through its two
    ends (section 5.1). With another distribution of times, its density is a further weight and the loss is not a bound;
    to train on other noise levels, choose another schedule. The bound's prior and reconstruction terms do not depend on
    the network and are left out.
    """

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight of the output's squared error."""
        # Computed from the error of the noise, since SNR exceeds the range of fp32.
        of_noise = squared_error_ratio(parameterization, Eps(), noised.alpha, noised.sigma)
        return -schedule.log_snr_slope(noised.t) / 2 * of_noise


@dataclass(frozen=True)
class SigmoidWeight:
    """The variational bound weighted by ``sigmoid(bias - log-SNR)``, so that fine detail counts less.

    One of the weighted bounds of Kingma & Gao 2023, in the form of Hoogeboom et al. 2024 (SiD2, appendix): weight
    ``-1/2 dlog-SNR/dt sigmoid(bias - log-SNR)`` of the squared error of the noise, or ``-1/2 dlog-SNR/dt exp(bias)
    sigmoid(log-SNR - bias)`` of that of x0. As with ``VLB``, for uniform times the expected loss depends on the
    schedule only through its two ends.

    Args:
        bias: log-SNR at which the sigmoid is 1/2; with a lower bias, fine detail counts less.
    """

    bias: LogRatio = 0.0

    def __call__(self, noised: NoisedLatents, parameterization: Parameterization, schedule: NoiseSchedule) -> Level:
        """Return the weight of the output's squared error."""
        weight = torch.sigmoid(self.bias - log_snr(noised.alpha, noised.sigma))
        return weight * VLB()(noised, parameterization, schedule)
