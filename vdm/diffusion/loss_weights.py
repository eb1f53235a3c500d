"""Weights of the loss by noise level, as factors of the squared error of the network's own output."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.parameterizations import Level, Parameterization


class LossWeight(Protocol):
    """A factor of each clip's loss."""

    def __call__(self, alpha: Level, sigma: Level, parameterization: Parameterization) -> Float[Tensor, " b"]:
        """Return the factor at each clip's noise level."""
        ...


@dataclass(frozen=True)
class Simple:
    """The same weight at every level, for the squared error of what the network predicts (Ho et al. 2020, eq. 14)."""

    def __call__(self, alpha: Level, sigma: Level, parameterization: Parameterization) -> Float[Tensor, " b"]:
        """Return 1."""
        return torch.ones_like(alpha)


@dataclass(frozen=True)
class MinSNR:
    """Weight ``min(SNR, gamma)`` of the squared error of x0 (Hang et al. 2023, eq. 10 and table of weights).

    Args:
        gamma: The signal-to-noise ratio above which the weight grows no more.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be > 0, but is {self.gamma}")

    def __call__(self, alpha: Level, sigma: Level, parameterization: Parameterization) -> Float[Tensor, " b"]:
        """Return the weight, divided by what turns errors of x0 into errors of the output."""
        snr = (alpha / sigma) ** 2
        return snr.clamp(max=self.gamma) / parameterization.x0_error_scale(alpha, sigma)
