"""Exact likelihood by the probability-flow ODE, a continuous normalizing flow.

Song et al. 2021, section 4.3 and appendix D.2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.likelihood.base import PIXEL_STEP, bits_per_dim
from vdm.diffusion.ode import DormandPrince, State, Step, Time
from vdm.diffusion.probability_flow import angle_range, velocity
from vdm.diffusion.samplers.base import DrawNoise
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, PerClip
from vdm.ranges import Positive

Probes = Float[Tensor, "p b c t h w"]


@dataclass(frozen=True)
class ExactLikelihood:
    """Bits per dimension of uniformly dequantized pixels.

    In expectation over the dequantization noise, this is an upper bound of the bits per dimension of the 8-bit pixels
    (Theis et al. 2016, eq. 4-6).

    Args:
        solver: Solver of the ODE. Each step calls the network 6 times, with ``num_probes`` backward passes each.
        num_probes: Number of random vectors of Hutchinson's estimator for the trace of the Jacobian. The estimate of
            the log-likelihood is unbiased for any number; more vectors reduce its variance.
        sigma_min: Noise-to-signal ratio at which the ODE starts; 0.001 is that of Song et al. at their ``t = 1e-5``.
    """

    solver: DormandPrince = DormandPrince(rtol=1e-4, atol=1e-4)
    num_probes: Annotated[int, Interval(ge=1, le=10_000)] = 1
    sigma_min: Positive = 0.001

    def __post_init__(self) -> None:
        if self.num_probes < 1:
            raise ValueError(f"num_probes must be at least 1, but is {self.num_probes}")

    @property
    def num_steps(self) -> int | None:
        """None: the solver is adaptive."""
        return None

    def __call__(
        self,
        denoise: Denoise,
        x0: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: Callable[[], object] | None = None,
    ) -> PerClip:
        """Return the bits per dimension of each clip; see ``Likelihood``."""
        uniform = torch.erf(draw_noise(0) / math.sqrt(2))  # in [-1, 1]
        pixels = x0 + uniform * PIXEL_STEP / 2
        probes = torch.stack([rademacher(draw_noise(number)) for number in range(1, self.num_probes + 1)])
        density = log_density(denoise, pixels, schedule, probes, self.solver, self.sigma_min, on_step)
        # A density times PIXEL_STEP, the width over which a pixel is uniform, is a probability.
        return bits_per_dim(-density, x0) - math.log2(PIXEL_STEP)


def rademacher(noise: Latents) -> Latents:
    """Return the signs of symmetric noise: the probe vectors for which Hutchinson's estimator has least variance."""
    return torch.where(noise < 0, -1.0, 1.0).to(noise)


def log_density(
    denoise: Denoise,
    x0: Latents,
    schedule: NoiseSchedule,
    probes: Probes,
    solver: DormandPrince,
    sigma_min: float,
    on_step: Callable[[], object] | None = None,
) -> PerClip:
    """Return the log-density of clean latents, in nats per clip, in float64 on the CPU.

    ``log p(x0) = log p(y1) + integral of div v`` (Song et al. 2021, eq. 39), in the variable of
    ``vdm.diffusion.probability_flow``, from the noise level ``sigma_min`` to that of ``t = 1``.

    Args:
        denoise: The model, differentiable in the latents.
        x0: The latents.
        schedule: Signal and noise at each time.
        probes: Random vectors with identity covariance, constant along the path; each gives an estimate of the
            divergence (Song et al. 2021, eq. 40).
        solver: Solver of the ODE.
        sigma_min: Noise-to-signal ratio at data.
        on_step: Called after each step of the solver.
    """
    of_data, of_noise = angle_range(schedule, sigma_min)

    def slope(angle: Time, state: State) -> State:
        v, divergence = _velocity_and_divergence(denoise, schedule, state[:, 0], angle, probes)
        return torch.stack([v, divergence], dim=1)

    def report(step: Step) -> None:
        if on_step is not None:
            on_step()

    y = math.cos(of_data) * x0
    state = solver(slope, torch.stack([y, torch.zeros_like(y)], dim=1), of_data, of_noise, report)
    y, divergence = state.cpu().double().flatten(2).unbind(1)
    normal = -(((y / math.sin(of_noise)) ** 2).sum(1) + y.shape[1] * math.log(2 * math.pi)) / 2
    log_scales = y.shape[1] * (math.log(math.cos(of_data)) - math.log(math.sin(of_noise)))
    return normal + log_scales + divergence.sum(1)


def _velocity_and_divergence(
    denoise: Denoise, schedule: NoiseSchedule, y: Latents, angle: Time, probes: Probes
) -> tuple[Latents, Latents]:
    """Return v, and the estimated divergence of v as a sum over elements of ``y``, not yet summed.

    Separate elements let the solver control their errors as it does those of ``y``.
    """
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        v = velocity(denoise, schedule, y, angle)
    divergence = torch.zeros_like(v)
    for number, probe in enumerate(probes, start=1):
        (product,) = torch.autograd.grad(v, y, probe, retain_graph=number < len(probes))
        divergence += product * probe / len(probes)
    return v.detach(), divergence
