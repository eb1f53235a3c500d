"""Samplers: from noise to clean latents by iterative denoising."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.parameterizations import Latents, Level, per_clip
from vdm.diffusion.schedules import NoiseSchedule

DrawNoise = Callable[[int], Latents]
"""Fresh standard normal noise for one step of sampling, by the step's number."""
OnStep = Callable[[int, Latents], object]
"""Called after each step with the number of steps done and the denoised latents."""


class Sampler(Protocol):
    """A way from noise to clean latents."""

    @property
    def num_steps(self) -> int:
        """Number of calls of the denoising function."""
        ...

    def __call__(
        self, denoise: Denoise, noise: Latents, schedule: NoiseSchedule, draw_noise: DrawNoise, on_step: OnStep | None
    ) -> Latents:
        """Return clean latents."""
        ...


def time_steps(
    schedule: NoiseSchedule, noise: Latents, num_steps: int
) -> Iterator[tuple[tuple[Level, Level], tuple[Level, Level]]]:
    """Yield (alpha, sigma) before and after each of ``num_steps`` steps, evenly spaced from ``t = 1`` to ``t = 0``."""
    # The schedule is evaluated in float64: near t = 0, fp32 would lose sigma to cancellation. On the CPU, since not
    # every device has float64.
    times = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)

    def level(t: Float[Tensor, ""]) -> tuple[Level, Level]:
        alpha, sigma = schedule.alpha_sigma(t[None])
        return alpha.to(noise).expand(len(noise)), sigma.to(noise).expand(len(noise))

    return pairwise(map(level, times))


@dataclass(frozen=True)
class DDIM:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).

    Args:
        num_steps: Number of calls of the network.
        eta: Share of fresh noise: 0 is deterministic, 1 has the variance of DDPM's posterior.
    """

    num_steps: int = 50
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, but is {self.num_steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], but is {self.eta}")

    def __call__(
        self,
        denoise: Denoise,
        noise: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: OnStep | None = None,
    ) -> Latents:
        """Return clean latents."""
        xt = x0 = noise
        for step, ((alpha, sigma), (alpha_next, sigma_next)) in enumerate(
            time_steps(schedule, noise, self.num_steps), start=1
        ):
            x0 = denoise(xt, alpha, sigma)
            eps = (xt - per_clip(alpha) * x0) / per_clip(sigma)
            fresh = self.eta * sigma_next * (1 - (alpha * sigma_next / (alpha_next * sigma)) ** 2).sqrt()
            kept = (sigma_next**2 - fresh**2).clamp(min=0).sqrt()
            xt = per_clip(alpha_next) * x0 + per_clip(kept) * eps
            if self.eta > 0:
                xt = xt + per_clip(fresh) * draw_noise(step)
            if on_step is not None:
                on_step(step, x0)
        return x0


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), with the variance of Ho et al. 2022 (eq. 6).

    Args:
        num_steps: Number of calls of the network.
        gamma: Interpolates log-variance from that of the posterior given x0 (0) to that of the forward step (1).
    """

    num_steps: int = 256
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, but is {self.num_steps}")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], but is {self.gamma}")

    def __call__(
        self,
        denoise: Denoise,
        noise: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: OnStep | None = None,
    ) -> Latents:
        """Return clean latents."""
        xt = x0 = noise
        for step, ((alpha, sigma), (alpha_next, sigma_next)) in enumerate(
            time_steps(schedule, noise, self.num_steps), start=1
        ):
            x0 = denoise(xt, alpha, sigma)
            ratio = alpha / alpha_next
            forward_variance = sigma**2 - (ratio * sigma_next) ** 2
            posterior_variance = forward_variance * (sigma_next / sigma) ** 2
            mean = (
                per_clip(ratio * (sigma_next / sigma) ** 2) * xt
                + per_clip(alpha_next * forward_variance / sigma**2) * x0
            )
            deviation = (posterior_variance ** (1 - self.gamma) * forward_variance**self.gamma).sqrt()
            xt = mean + per_clip(deviation) * draw_noise(step)
            if on_step is not None:
                on_step(step, x0)
        return x0
