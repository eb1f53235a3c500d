"""The predictor-corrector sampler for stochastic differential equations."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval

from vdm.diffusion.samplers.base import GridPoint, GridSampler, SamplerState
from vdm.diffusion.shapes import Latents, PerClip, over_latents
from vdm.ranges import NumSteps, Positive


@dataclass(frozen=True)
class PredictorCorrector(GridSampler):
    """Song et al. 2021, algorithms 2 to 5: reverse diffusion, and Langevin dynamics at each noise level.

    The forward step from ``then`` to ``now`` scales by ``a = alpha/alpha'`` and adds noise of variance ``beta = sigma^2
    - a^2 sigma'^2``. In these terms the variance-exploding algorithms (``a = 1``) and the variance-preserving ones
    (``a^2 = 1 - beta``) are the same. As in the authors' code, corrections come before the step at each noise level,
    and the last step returns the denoised latents. Unlike in the authors' code and in diffusers, each clip has its own
    Langevin step size instead of the mean over the batch.

    Args:
        num_steps: Number of steps; the network is called ``num_steps (1 + num_corrections)`` times.
        spacing: Spacing of the grid's points.
        num_corrections: Number of Langevin steps at each noise level.
        snr: Signal-to-noise ratio r of a Langevin step. A higher ratio is a larger step, whose variance is too large by
            up to ``r^2 / (1 - r^2)``.
    """

    num_steps: NumSteps = 1000
    num_corrections: Annotated[int, Interval(ge=0, le=1000)] = 1
    snr: Positive = 0.16

    needs_signal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_corrections < 0:
            raise ValueError(f"num_corrections must be >= 0, but is {self.num_corrections}")
        if self.snr <= 0:
            raise ValueError(f"snr must be > 0, but is {self.snr}")

    @property
    def calls_network_once(self) -> bool:
        """False with corrections, which also call the network."""
        return self.num_corrections == 0

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        a = now.alpha / then.alpha
        for _ in range(self.num_corrections):
            xt = self._corrected(state, xt, now, a)
        x0 = state.denoise(xt, now)
        if then.sigma == 0:
            return x0, x0
        beta = now.sigma**2 - (a * then.sigma) ** 2
        mean = (2 - a) * xt + beta * _score(xt, x0, now)
        return state.drawn(mean, math.sqrt(beta), now, then), x0

    def _corrected(self, state: SamplerState, xt: Latents, now: GridPoint, a: float) -> Latents:
        """Take one Langevin step (algorithms 4 and 5), whose size depends on the norm of the noise."""
        score = _score(xt, state.denoise(xt, now), now)
        noise = state.draw_noise()
        # A score that rounding made 0 gives a step of size 0.
        length = _norm(score)
        ratio = torch.where(length > 0, _norm(noise) / length, 0)
        step_size = over_latents(2 * a**2 * (self.snr * ratio) ** 2)
        return state.drawn(xt + step_size * score, torch.sqrt(2 * step_size), now, now, noise)


def _score(xt: Latents, x0: Latents, now: GridPoint) -> Latents:
    return (now.alpha * x0 - xt) / now.sigma**2


def _norm(latents: Latents) -> PerClip:
    return (latents**2).flatten(1).sum(1).sqrt()
