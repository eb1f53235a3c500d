"""Euler's method for the probability-flow ODE, with churn."""

import math
from dataclasses import dataclass

from vdm.diffusion.samplers.base import GridPoint, GridSampler, NoiseLevel, SamplerState
from vdm.diffusion.shapes import Latents
from vdm.ranges import NotNegative, PositiveOrInfinite


@dataclass(frozen=True)
class Euler(GridSampler):
    """Karras et al. 2022, algorithm 2, lines 4 to 8.

    The paper's x and sigma are ``xt / alpha`` and ``sigma / alpha`` here, which works for every schedule. In these
    variables the ODE is ``dx/dsigma = (x - x0) / sigma``. Without churn a step equals that of DDIM; for ``alpha + sigma
    = 1`` it also equals Euler's step along the velocity of a rectified flow (Liu et al. 2023).

    Args:
        num_steps: Number of network evaluations.
        spacing: Spacing of the grid's points.
        s_churn: Amount of noise added over all steps, which the steps also remove; 0 is deterministic.
        s_tmin: Lowest noise-to-signal ratio at which noise is added.
        s_tmax: Highest noise-to-signal ratio at which noise is added.
        s_noise: Standard deviation of the added noise; slightly above 1 compensates for smoothing by the network.
    """

    s_churn: NotNegative = 0.0
    s_tmin: NotNegative = 0.0
    s_tmax: PositiveOrInfinite = math.inf
    s_noise: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s_churn < 0:
            raise ValueError(f"s_churn must be >= 0, but is {self.s_churn}")
        if not 0 <= self.s_tmin <= self.s_tmax:
            raise ValueError(
                f"s_tmin and s_tmax must be >= 0, s_tmin not above s_tmax, but are {self.s_tmin} and {self.s_tmax}"
            )
        if self.s_noise < 0:
            raise ValueError(f"s_noise must be >= 0, but is {self.s_noise}")

    @property
    def calls_network_once(self) -> bool:
        """False with churn, which adds noise before the call."""
        return self.s_churn == 0

    def step(self, state: SamplerState, xt: Latents, now: GridPoint, then: GridPoint) -> tuple[Latents, Latents]:
        """Take one step."""
        xt, level = self.churned(state, xt, now)
        x0 = state.denoise(xt, level)
        return straight(xt, x0, level, then), x0

    def churned(self, state: SamplerState, xt: Latents, now: NoiseLevel) -> tuple[Latents, NoiseLevel]:
        """Raise the noise level from ``now`` by adding noise; return the latents and the new level (lines 4 to 6)."""
        gamma = min(self.s_churn / self.num_steps, math.sqrt(2) - 1)
        # Pure noise can't become noisier.
        if gamma == 0 or now.alpha == 0 or not self.s_tmin <= now.noise_to_signal <= self.s_tmax:
            return xt, now
        level = state.level((1 + gamma) * now.noise_to_signal)
        added = math.sqrt(level.noise_to_signal**2 - now.noise_to_signal**2)
        return state.drawn(level.alpha / now.alpha * xt, level.alpha * added * self.s_noise, now, level), level


def straight(xt: Latents, x0: Latents, now: NoiseLevel, then: NoiseLevel) -> Latents:
    """Return the latents at ``then`` on the line through ``xt`` and ``x0`` in ``sigma / alpha`` (lines 7 and 8)."""
    eps = (xt - now.alpha * x0) / now.sigma
    return then.alpha * x0 + then.sigma * eps
