"""The reverse-time stochastic differential equation by the method of Euler and Maruyama."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vdm.diffusion.samplers.base import GridPoint, GridSampler, Run
from vdm.diffusion.shapes import Latents
from vdm.ranges import NumSteps


@dataclass(frozen=True)
class EulerMaruyama(GridSampler):
    """Song et al. 2021, eq. 6: ``dx = (f x - g^2 score) dt + g dw``, from ``t = 1`` down to 0.

    The score is ``-(xt - alpha x0) / sigma^2``. The last step returns the denoised latents, without noise. The authors'
    code takes ``1 / num_steps`` for the length of each step, here it is the distance of the grid's points.

    Args:
        num_steps: Number of calls of the network; hundreds, since steps too long for ``f`` and ``g^2`` explode.
        spacing: Where the grid's points lie.
    """

    num_steps: NumSteps = 1000

    needs_signal: ClassVar[bool] = True

    def step(self, run: Run, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        x0 = run.denoise(xt, now)
        if then.sigma == 0:
            return x0, x0
        drift, diffusion = run.drift_diffusion[now]
        dt = now.t - then.t
        minus_score = (xt - now.alpha * x0) / now.sigma**2
        mean = xt - dt * drift * xt - dt * diffusion * minus_score
        return run.drawn(mean, math.sqrt(dt * diffusion), now, then), x0
