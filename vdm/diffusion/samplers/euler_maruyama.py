"""The Euler-Maruyama method for the reverse-time stochastic differential equation."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vdm.diffusion.samplers.base import GridPoint, GridSampler, SamplerState
from vdm.diffusion.shapes import Latents
from vdm.ranges import NumSteps


@dataclass(frozen=True)
class EulerMaruyama(GridSampler):
    """Song et al. 2021, eq. 6: ``dx = (f x - g^2 score) dt + g dw``, from ``t = 1`` down to 0.

    The score is ``-(xt - alpha x0) / sigma^2``. The last step returns the denoised latents, without noise. The step
    size is the distance of the grid's points, and not ``1 / num_steps`` as in the authors' code.

    Args:
        num_steps: Number of network evaluations. Needs hundreds: steps too long for ``f`` and ``g^2`` diverge.
        spacing: Spacing of the grid's points.
    """

    num_steps: NumSteps = 1000

    needs_signal: ClassVar[bool] = True

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        x0 = state.denoise(xt, now)
        if then.sigma == 0:
            return x0, x0
        drift, diffusion = state.drift_diffusion[now]
        dt = now.t - then.t
        minus_score = (xt - now.alpha * x0) / now.sigma**2
        mean = xt - dt * drift * xt - dt * diffusion * minus_score
        return state.drawn(mean, math.sqrt(dt * diffusion), now, then), x0
