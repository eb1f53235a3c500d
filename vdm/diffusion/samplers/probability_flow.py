"""The probability-flow ODE with an adaptive solver."""

import math
from dataclasses import dataclass
from itertools import count

import torch

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.ode import DormandPrince, State, Step, Time
from vdm.diffusion.probability_flow import angle_range, denoised, velocity
from vdm.diffusion.samplers.base import DrawNoise, OnStep, OnTransition
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, over_latents
from vdm.ranges import Positive


@dataclass(frozen=True)
class ProbabilityFlow:
    """Song et al. 2021, eq. 13, solved to a tolerance from ``t = 1`` to noise level ``sigma_min``, then denoised once.

    It is solved in the variable of ``vdm.diffusion.probability_flow``, which does not change the solution.

    Args:
        solver: Solver, with tolerances for latents of unit variance. Each step calls the network 6 times.
        sigma_min: Noise-to-signal ratio before the last denoising; 0.002 as in Karras et al. 2022.
    """

    solver: DormandPrince = DormandPrince(rtol=1e-3, atol=1e-3)
    sigma_min: Positive = 0.002

    @property
    def num_steps(self) -> int | None:
        """None: the solver is adaptive."""
        return None

    def __call__(
        self,
        denoise: Denoise,
        noise: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: OnStep | None = None,
        on_transition: OnTransition | None = None,
    ) -> Latents:
        """Return clean latents; see ``Sampler``."""
        of_data, of_noise = angle_range(schedule, self.sigma_min)
        numbers = count(1)

        def slope(angle: Time, y: State) -> State:
            return velocity(denoise, schedule, y, angle)

        def report(step: Step) -> None:
            if on_step is not None:
                cos, sin = (over_latents(factor.to(noise)) for factor in (torch.cos(step.t), torch.sin(step.t)))
                on_step(next(numbers), cos * step.y - sin * step.slope)

        y = self.solver(slope, math.sin(of_noise) * noise, of_noise, of_data, report)
        return denoised(denoise, schedule, y, torch.full((len(y),), of_data, dtype=torch.float64))
