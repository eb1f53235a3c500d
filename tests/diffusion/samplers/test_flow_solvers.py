"""Sampling of shifted rectified flows against diffusers' schedulers with noise levels of their own choice."""

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from tests.diffusion.latents import random_latents
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.parameterizations import FlowTimestep, Velocity
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.spacing import FlowSteps, Linspace
from vdm.diffusion.samplers.unipc import UniPC
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.time_shifts import ShiftedTimes, shifted
from vdm.types import Conditioning

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of NumPy, in diffusers

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
BELOW_ONE = FlowSteps(t_max=0.999, t_min=0.0)


def last_of_linspace(shift: float) -> float:
    """Return the last time of flow-matching Euler, which shifts its first timestep twice."""
    return float(shifted(torch.tensor([0.001], dtype=torch.float64), shift))


def network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
    return torch.tanh(1.3 * xt + c_noise.to(xt.dtype)[:, None, None, None, None] / 700) - 0.1 * xt.mean(2, keepdim=True)


def of_diffusers(scheduler: Any, noise: Tensor, num_steps: int) -> Tensor:
    scheduler.set_timesteps(num_steps)
    xt = noise
    for timestep in scheduler.timesteps:
        output = network(xt, timestep.expand(len(xt)), Conditioning())
        xt = scheduler.step(output, timestep, xt).prev_sample
    return xt


@pytest.mark.parametrize("num_steps", [4, 20])
@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("kind", ["unipc", "unipc of order 3", "dpm_solver_pp_2m", "euler"])
def test_samples_equal_those_of_diffusers_with_the_same_shift(kind: str, shift: float, num_steps: int) -> None:
    first: dict[str, tuple[GridSampler, Any]] = {
        "unipc": (UniPC(num_steps, FlowSteps()), UniPCMultistepScheduler(**FLOW, flow_shift=shift)),
        "unipc of order 3": (
            UniPC(num_steps, FlowSteps(), order=3),
            UniPCMultistepScheduler(**FLOW, flow_shift=shift, solver_order=3),
        ),
        "dpm_solver_pp_2m": (
            DPMSolverPP2M(num_steps, BELOW_ONE),
            DPMSolverMultistepScheduler(**FLOW, flow_shift=shift),
        ),
        "euler": (
            Euler(num_steps, Linspace(last_of_linspace(shift))),
            FlowMatchEulerDiscreteScheduler(shift=shift),
        ),
    }
    sampler, scheduler = first[kind]
    parameterization = Velocity(FlowTimestep(whole=kind != "euler"))
    denoise = partial(Denoiser(network, parameterization), condition=Conditioning())
    noise = random_latents("z").float()

    schedule = ShiftedTimes(RectifiedFlow(), shift)
    # diffusers starts with noise of unit variance, whatever the first noise level.
    ours = sampler(denoise, noise / sampler.grid(schedule)[0].sigma, schedule, lambda _: noise)

    torch.testing.assert_close(ours, of_diffusers(scheduler, noise, num_steps), rtol=1e-4, atol=1e-4)


def test_a_shift_in_sampling_replaces_that_of_training() -> None:
    own = UniPC(8, FlowSteps(shift=5.0))
    grids = [own.grid(schedule) for schedule in (ShiftedTimes(RectifiedFlow(), 3.0), RectifiedFlow())]
    expected = UniPC(8, FlowSteps()).grid(ShiftedTimes(RectifiedFlow(), 5.0))

    for grid in grids:
        assert [point.sigma for point in grid] == pytest.approx([point.sigma for point in expected], rel=1e-9)
