"""What the network predicts, and how that turns into clean latents.

Each parameterization is a function of ``alpha`` and ``sigma`` alone, so that any schedule and any sampler goes with it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.schedules import log_snr

Level = Float[Tensor, " b"]
Latents = Float[Tensor, "b c t h w"]


def per_clip(level: Level) -> Float[Tensor, "b 1 1 1 1"]:
    """Shape one number a clip so that it multiplies latents."""
    return rearrange(level, "b -> b 1 1 1 1")


class Parameterization(Protocol):
    """How the network's input, its output and its noise-level embedding relate to latents."""

    def c_in(self, alpha: Level, sigma: Level) -> Level:
        """Return the factor of the noised latents at the network's entrance."""
        ...

    def c_noise(self, alpha: Level, sigma: Level) -> Level:
        """Return the noise level as the network is told it."""
        ...

    def target(self, x0: Latents, noise: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return what the network should output."""
        ...

    def x0(self, prediction: Latents, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the clean latents that a network's output stands for."""
        ...

    def x0_error_scale(self, alpha: Level, sigma: Level) -> Level:
        """Return the squared error of the output per squared error of the ``x0`` it stands for."""
        ...


class _VariancePreserving:
    """Input as it is; the network is told log-SNR."""

    def c_in(self, alpha: Level, sigma: Level) -> Level:
        """Return 1: noised latents have about unit variance already."""
        return torch.ones_like(alpha)

    def c_noise(self, alpha: Level, sigma: Level) -> Level:
        """Return log-SNR."""
        return log_snr(alpha, sigma)


@dataclass(frozen=True)
class Eps(_VariancePreserving):
    """The network predicts the noise (Ho et al. 2020, eq. 14)."""

    def target(self, x0: Latents, noise: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the noise."""
        return noise

    def x0(self, prediction: Latents, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return ``(xt - sigma prediction) / alpha``."""
        return (xt - per_clip(sigma) * prediction) / per_clip(alpha)

    def x0_error_scale(self, alpha: Level, sigma: Level) -> Level:
        """Return the signal-to-noise ratio."""
        return (alpha / sigma) ** 2


@dataclass(frozen=True)
class X0(_VariancePreserving):
    """The network predicts the clean latents."""

    def target(self, x0: Latents, noise: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the clean latents."""
        return x0

    def x0(self, prediction: Latents, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the output itself."""
        return prediction

    def x0_error_scale(self, alpha: Level, sigma: Level) -> Level:
        """Return 1."""
        return torch.ones_like(alpha)


@dataclass(frozen=True)
class V(_VariancePreserving):
    """The network predicts ``v = alpha noise - sigma x0`` (Salimans & Ho 2022, section 4 and appendix D).

    With ``alpha^2 + sigma^2 = 1`` this gives ``x0 = alpha xt - sigma v``; the division keeps it right elsewhere.
    """

    def target(self, x0: Latents, noise: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return ``alpha noise - sigma x0``."""
        return per_clip(alpha) * noise - per_clip(sigma) * x0

    def x0(self, prediction: Latents, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return ``(alpha xt - sigma prediction) / (alpha^2 + sigma^2)``."""
        return (per_clip(alpha) * xt - per_clip(sigma) * prediction) / per_clip(alpha**2 + sigma**2)

    def x0_error_scale(self, alpha: Level, sigma: Level) -> Level:
        """Return ``((alpha^2 + sigma^2) / sigma)^2``, which is ``1 + SNR`` where variance is preserved."""
        return ((alpha**2 + sigma**2) / sigma) ** 2
