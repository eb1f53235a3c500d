"""Shifts of times by the size of a clip, against the papers and diffusers."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.loss_weights import VLB, Simple
from vdm.diffusion.noise_levels import LogitNormal, Uniform
from vdm.diffusion.parameterizations import Velocity
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.spacing import Trailing
from vdm.diffusion.schedules.base import log_snr
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.time_shifts import ConstantShift, ExponentialShift, RootShift, ShiftedTimes, TimeShift

TIMES = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
SHAPE = (16, 5, 12, 20)


def test_root_shift_keeps_the_uncertainty_of_a_larger_clip() -> None:
    """Esser et al. 2024, eq. 22: log-SNR falls by log(m / n) from n to m tokens."""
    shifted = RootShift((1, 2, 2), base_tokens=60)(TIMES, SHAPE)
    num_tokens = 5 * 6 * 10

    before, after = (log_snr(*RectifiedFlow().alpha_sigma(t)) for t in (TIMES, shifted))
    torch.testing.assert_close(before - after, torch.full_like(TIMES, math.log(num_tokens / 60)))


@pytest.mark.parametrize(
    ("patch", "num_tokens"), [((1, 1, 1), 1200), ((1, 2, 2), 300), ((2, 4, 4), 45), ((5, 12, 20), 1)]
)
def test_tokens_are_counted_by_patches_rounded_up(patch: tuple[int, int, int], num_tokens: int) -> None:
    assert RootShift(patch, base_tokens=1).factor(SHAPE) == math.sqrt(num_tokens)


def test_constant_shift_is_that_of_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=TIMES.flip(0).tolist())

    torch.testing.assert_close(
        ConstantShift(3.0)(TIMES, SHAPE), scheduler.sigmas[:-1].flip(0).double(), rtol=1e-6, atol=0
    )


def test_exponential_shift_is_the_dynamic_shifting_of_diffusers() -> None:
    mu = calculate_shift(5 * 6 * 10)
    shifted = ExponentialShift()(TIMES, SHAPE)

    assert ExponentialShift().factor(SHAPE) == pytest.approx(math.exp(mu))
    for shift_type, value in (("exponential", mu), ("linear", math.exp(mu))):
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=shift_type)
        torch.testing.assert_close(shifted, scheduler.time_shift(value, 1.0, TIMES))


@pytest.mark.parametrize("shift", [ConstantShift(), RootShift(), ExponentialShift()], ids=str)
def test_ends_stay(shift: TimeShift) -> None:
    ends = torch.tensor([0.0, 1.0])

    assert torch.equal(shift(ends, SHAPE), ends)


def test_no_time_is_shifted_beyond_the_end() -> None:
    """Whatever the rounding: straight paths have no log-SNR there."""
    last = torch.cat([1 - torch.arange(200) * 2**-24, torch.linspace(0, 1, 1000)])
    for factor in torch.logspace(-1.2, 1.2, 200, dtype=torch.float64).tolist():
        shift = ConstantShift(factor)
        assert shift(torch.ones(1, dtype=torch.float64), SHAPE).item() == 1
        assert shift(last, SHAPE).max() == 1
        assert all(map(math.isfinite, _sigmas(shift)))


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_times_beyond_the_ends_of_a_schedule_that_goes_on_stay(factor: float) -> None:
    """``s t / (1 + (s - 1) t)`` has a pole there, at ``t = 1 / (1 - s)``."""
    beyond = torch.tensor([-0.5, -0.1, 1.1, 1.5])
    shift = ConstantShift(factor)

    torch.testing.assert_close(shift(beyond, SHAPE), beyond)
    log_snrs = VarianceExploding().log_snr(beyond)
    torch.testing.assert_close(ShiftedTimes(VarianceExploding(), factor).time(log_snrs), beyond)


def _sigmas(shift: TimeShift) -> list[float]:
    schedule = GaussianDiffusion(RectifiedFlow(), Velocity(), Uniform(), Simple(), time_shift=shift)
    return [point.sigma for point in Euler(2).grid(schedule.sampling_schedule(SHAPE))]


def test_each_size_is_trained_with_its_own_shift() -> None:
    """Images beside a clip are no part of its size."""
    plain = GaussianDiffusion(RectifiedFlow(), Velocity(), LogitNormal(), Simple())
    diffusion = GaussianDiffusion(
        RectifiedFlow(), Velocity(), LogitNormal(), Simple(), time_shift=RootShift((1, 1, 1), base_tokens=128)
    )
    positions = torch.arange(20)
    for shape, s in (((3, 2, 8, 8), 1.0), ((3, 2, 16, 16), 2.0), ((3, 8, 16, 16), 4.0)):
        t = plain.draw_times(0, positions, 4, shape).t
        with_images = (3, shape[1] + 2, *shape[2:])
        for found in (
            diffusion.draw_times(0, positions, 4, shape).t,
            diffusion.draw_times(0, positions, 4, with_images, num_images=2).t,
        ):
            torch.testing.assert_close(found, s * t / (1 + (s - 1) * t))


def test_samplers_walk_through_the_shifted_times() -> None:
    """On straight paths, from 1 to 0 at the sigmas of diffusers' scheduler."""
    diffusion = GaussianDiffusion(RectifiedFlow(), Velocity(), LogitNormal(), Simple(), time_shift=ExponentialShift())
    schedule = diffusion.sampling_schedule(SHAPE)
    grid = Euler(50, Trailing()).grid(schedule)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 51)[:-1].tolist(), mu=calculate_shift(5 * 6 * 10))

    torch.testing.assert_close(torch.tensor([point.sigma for point in grid]), scheduler.sigmas, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(schedule.time(schedule.log_snr(TIMES)), TIMES)


def test_without_a_shift_samplers_walk_through_the_schedule_itself() -> None:
    diffusion = GaussianDiffusion(RectifiedFlow(), Velocity(), LogitNormal(), Simple())

    assert diffusion.sampling_schedule(SHAPE) is diffusion.schedule


def test_weights_that_are_infinite_at_the_end_are_refused_with_a_shift() -> None:
    """A shift may round a time just below 1 to 1."""
    GaussianDiffusion(RectifiedFlow(), Velocity(), Uniform(t_min=1e-5), VLB())
    with pytest.raises(ValueError, match=r"^loss_weight=VLB\(\): is (inf|nan) at t=1, "):
        GaussianDiffusion(RectifiedFlow(), Velocity(), Uniform(t_min=1e-5), VLB(), time_shift=ConstantShift())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^shift must be > 0, but is 0\.0$"):
        ConstantShift(0.0)
    with pytest.raises(ValueError, match=r"^patch must be three numbers of at least 1, but is \[1, 0, 2\]$"):
        RootShift((1, 0, 2))
    with pytest.raises(ValueError, match=r"^base_tokens must be at least 1, but is 0$"):
        RootShift(base_tokens=0)
    with pytest.raises(ValueError, match=r"^base_shift must be > 0, but is -1\.0$"):
        RootShift(base_shift=-1.0)
    with pytest.raises(
        ValueError, match=r"^base_tokens must be at least 1 and below max_tokens, but they are 9 and 9$"
    ):
        ExponentialShift(base_tokens=9, max_tokens=9)
