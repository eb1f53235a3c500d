"""Ancestral sampling."""

import math
from dataclasses import dataclass

from vdm.diffusion.samplers.base import GridPoint, GridSampler, SamplerState
from vdm.diffusion.shapes import Latents
from vdm.ranges import NumSteps, Share


@dataclass(frozen=True)
class DDPM(GridSampler):
    """Ho et al. 2020, algorithm 2, with the variance of Ho et al. 2022 (eq. 6).

    With a variance-exploding schedule, ``gamma = 0`` is the ancestral sampling of Song et al. 2021 (eq. 47).

    Args:
        num_steps: Number of network evaluations.
        spacing: Spacing of the grid's points.
        gamma: Interpolates log-variance from that of the posterior given x0 (0) to that of the forward step (1).
            Ignored if the network has learned variances (Nichol & Dhariwal 2021, eq. 15).
    """

    num_steps: NumSteps = 256
    gamma: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], but is {self.gamma}")

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        denoised = state.denoised(xt, now)
        if then.sigma == 0:
            return denoised.x0, denoised.x0
        ratio = now.alpha / then.alpha
        forward = now.sigma**2 - (ratio * then.sigma) ** 2
        shrink = (then.sigma / now.sigma) ** 2
        mean = ratio * shrink * xt + then.alpha * forward / now.sigma**2 * denoised.x0
        share = self.gamma if denoised.variance_share is None else denoised.variance_share
        # The posterior's variance is shrink * forward.
        deviation = math.sqrt(forward) * shrink ** ((1 - share) / 2)
        return state.drawn(mean, deviation, now, then), denoised.x0
