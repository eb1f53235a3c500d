"""A sampler: deterministic DDIM, written anew."""

from dataclasses import dataclass

from torch import Tensor

from vdm.diffusion.samplers.base import GridPoint, GridSampler, SamplerState


@dataclass(frozen=True)
class MySampler(GridSampler):
    """Song et al. 2021, eq. 12 with sigma = 0; the grid of noise levels is that of ``GridSampler``."""

    def step(self, state: SamplerState, xt: Tensor, now: GridPoint, then: GridPoint) -> tuple[Tensor, Tensor]:
        """Return the latents at ``then``, and the denoised ones, to be looked at."""
        x0 = state.denoise(xt, now)
        return then.alpha * x0 + then.sigma * (xt - now.alpha * x0) / now.sigma, x0
