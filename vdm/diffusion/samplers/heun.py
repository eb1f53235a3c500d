"""Heun's method for the probability-flow ODE, with churn."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from vdm.diffusion.samplers.base import GridPoint, SamplerState
from vdm.diffusion.samplers.euler import Euler, straight
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents

_LARGEST_DEVIATION = 2.0
"""Standard deviation of samples, for data of unit variance, above which a grid gets a warning."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Heun(Euler):
    """Karras et al. 2022, algorithm 2: Euler steps, corrected by the slope at their end; second order.

    The correction grows with the ratio of the noise levels of a step. With schedules that start from almost pure noise,
    such as ``Cosine``, and uniform times, the first step diverges. Such grids get a warning.

    Args:
        num_steps: Number of steps; the network is called ``2 num_steps - 1`` times.
        spacing: Spacing of the grid's points.
        s_churn: See ``Euler``.
        s_tmin: See ``Euler``.
        s_tmax: See ``Euler``.
        s_noise: See ``Euler``.
    """

    @property
    def calls_network_once(self) -> bool:
        """False: a second call corrects the step."""
        return False

    def grid(self, schedule: NoiseSchedule) -> list[GridPoint]:
        """Return the grid; warn once if its steps are too long for this method."""
        grid = super().grid(schedule)
        deviation = _deviation_of_unit_gaussian(grid)
        if deviation > _LARGEST_DEVIATION:
            _warn_once(
                f"sampler=heun: {self.num_steps} steps of {self.spacing} are too long: for data of standard deviation"
                f" 1, that of samples would be {deviation:.3g}; choose sampler/spacing=karras"
                " sampler.spacing.sigma_max=80, or more steps"
            )
        return grid

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        xt, level = self.churned(state, xt, now)
        x0 = state.denoise(xt, level)
        xt = straight(xt, x0, level, then)
        # Clean latents have no slope, and neither has pure noise in the paper's variables.
        if then.sigma == 0 or level.alpha == 0:
            return xt, x0
        # Lines 10 and 11 add (sigma' - sigma) (d' - d) / 2. Since x' was reached along d, the difference of slopes is
        # d' - d = (x0 - x0') / sigma'. This form avoids cancellation of large numbers where there is little signal.
        half_step = (level.noise_to_signal / then.noise_to_signal - 1) / 2
        return xt + then.alpha * half_step * (state.denoise(xt, then) - x0), x0


def _deviation_of_unit_gaussian(grid: Sequence[GridPoint]) -> float:
    """Return the standard deviation of samples if data are normal with standard deviation 1.

    For such data the optimal ``x0`` is ``x / (1 + sigma^2)``, in the paper's variables, and a step is a multiplication.
    """
    x = grid[0].noise_to_signal  # standard deviation of xt / alpha
    for now, then in pairwise(grid):
        start, end = now.noise_to_signal, then.noise_to_signal
        if math.isinf(start):  # pure noise: the prediction is the mean of x0, which is 0
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
