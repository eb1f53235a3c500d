"""Heun's method for the probability-flow ODE, with churn."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from vdm.diffusion.samplers.base import GridPoint, Run
from vdm.diffusion.samplers.euler import Euler, straight
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents

_LARGEST_DEVIATION = 2.0
"""Standard deviation of samples of unit-variance data from which on a grid is warned of."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heun(Euler):
    """Karras et al. 2022, algorithm 2: a step of Euler's, corrected by the slope where it ends; second order.

    The correction grows with the ratio of noise levels in a step. From schedules that begin with almost pure noise,
    such as ``Cosine``, evenly spaced times make a first step in which it explodes; such a grid is warned of.

    Args:
        num_steps: Number of steps; the network is called ``2 num_steps - 1`` times.
        spacing: Where the grid's points lie.
        s_churn: Noise added over the whole run, which the steps then take away too; 0 is deterministic.
        s_tmin: Least ratio of noise to signal at which noise is added.
        s_tmax: Largest ratio of noise to signal at which noise is added.
        s_noise: Standard deviation of the added noise; a little above 1 makes up for what networks smooth away.
    """

    @property
    def calls_network_once(self) -> bool:
        """Not so: a second call corrects the step."""
        return False

    def grid(self, schedule: NoiseSchedule) -> list[GridPoint]:
        """Return the grid; warn, once, of one whose steps are too long for this method."""
        grid = super().grid(schedule)
        deviation = _deviation_of_unit_gaussian(grid)
        if deviation > _LARGEST_DEVIATION:
            _warn_once(
                f"sampler=heun: {self.num_steps} steps of {self.spacing} are too long for it: data of standard"
                f" deviation 1 would get one of {deviation:.3g}; choose sampler/spacing=karras"
                " sampler.spacing.sigma_max=80, or more steps"
            )
        return grid

    def step(self, run: Run, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        xt, level = self.churned(run, xt, now)
        x0 = run.denoise(xt, level)
        xt = straight(xt, x0, level, then)
        # Neither clean latents nor, in the paper's variables, pure noise have a slope.
        if then.sigma == 0 or level.alpha == 0:
            return xt, x0
        # Lines 10 and 11, which add (sigma' - sigma) (d' - d) / 2. Since x' was reached along d, the difference of
        # slopes is d' - d = (x0 - x0') / sigma'. In this form nothing large cancels where there is little signal.
        half_step = (level.noise_to_signal / then.noise_to_signal - 1) / 2
        return xt + then.alpha * half_step * (run.denoise(xt, then) - x0), x0


def _deviation_of_unit_gaussian(grid: Sequence[GridPoint]) -> float:
    """Return the standard deviation of samples where data are normal with standard deviation 1.

    There the best ``x0`` is ``x / (1 + sigma^2)``, in the paper's variables, and a step multiplies by a number.
    """
    x = grid[0].noise_to_signal  # standard deviation of xt / alpha
    for now, then in pairwise(grid):
        start, end = now.noise_to_signal, then.noise_to_signal
        if math.isinf(start):  # pure noise, of which nothing is known but that x0 has mean 0
            x = end
            continue
        x0 = x / (1 + start**2)
        x = x0 + end / start * (x - x0)
        if end > 0:
            x += (start / end - 1) / 2 * (x / (1 + end**2) - x0)
    return abs(x)


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
