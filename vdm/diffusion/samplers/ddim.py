"""Denoising diffusion implicit models."""

import math
from dataclasses import dataclass

from vdm.diffusion.samplers.base import GridPoint, GridSampler, SamplerState
from vdm.diffusion.shapes import Latents
from vdm.ranges import Share


@dataclass(frozen=True)
class DDIM(GridSampler):
    """Song, Meng & Ermon 2021, eq. 12 and 16.

    For ``eta`` from 0 to 1 these are the steps of k-diffusion's ancestral Euler sampler with the same ``eta``;
    ``fresh / alpha`` is its ``sigma_up``, in terms of Karras et al. 2022's sigma.

    Args:
        num_steps: Number of network evaluations.
        spacing: Spacing of the grid's points.
        eta: Amount of fresh noise: 0 is deterministic, 1 has the variance of DDPM's posterior.
    """

    eta: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], but is {self.eta}")

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        x0 = state.denoise(xt, now)
        eps = (xt - now.alpha * x0) / now.sigma
        fresh = self.eta * then.sigma * math.sqrt(1 - (then.noise_to_signal / now.noise_to_signal) ** 2)
        mean = then.alpha * x0 + math.sqrt(then.sigma**2 - fresh**2) * eps
        return state.drawn(mean, fresh, now, then), x0
