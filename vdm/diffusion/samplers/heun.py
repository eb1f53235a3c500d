"""Heun's method for the probability-flow ODE, with churn."""

from dataclasses import dataclass

from vdm.diffusion.samplers.base import GridPoint, Run
from vdm.diffusion.samplers.euler import Euler, straight
from vdm.diffusion.shapes import Latents


@dataclass(frozen=True)
class Heun(Euler):
    """Karras et al. 2022, algorithm 2: a step of Euler's, corrected by the slope where it ends; second order.

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
