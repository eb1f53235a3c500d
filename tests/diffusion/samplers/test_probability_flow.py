"""The probability-flow ODE against Gaussian data, whose flow is known, and against its form in the paper."""

import math

import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import random_latents
from tests.diffusion.samplers.closed_forms import DEVIATION, GAUSSIAN, MEAN, TWO_PEAKS
from tests.diffusion.schedules.every_schedule import EVERY_SCHEDULE
from vdm.diffusion.denoiser import Denoised
from vdm.diffusion.ode import DormandPrince
from vdm.diffusion.probability_flow import angle_range, velocity
from vdm.diffusion.samplers.probability_flow import ProbabilityFlow
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.shapes import over_latents


def exact_sample(noise: Tensor, schedule: NoiseSchedule, sigma_min: float) -> Tensor:
    """Return what the flow makes of noise: (xt - alpha mean) / sqrt(alpha^2 deviation^2 + sigma^2) stays the same."""
    of_data, of_noise = angle_range(schedule, sigma_min)
    cos, sin = math.cos(of_noise), math.sin(of_noise)
    constant = (sin * noise - cos * MEAN) / math.hypot(cos * DEVIATION, sin)
    last_noise = math.tan(of_data)
    return MEAN + DEVIATION**2 / math.hypot(DEVIATION, last_noise) * constant


def no_noise(number: int) -> Tensor:
    raise AssertionError("the ODE draws no noise")


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-7])
def test_samples_are_exact_to_the_tolerance_asked_for(schedule: NoiseSchedule, tolerance: float) -> None:
    noise = random_latents("z")
    sampler = ProbabilityFlow(DormandPrince(tolerance, tolerance))
    samples = sampler(GAUSSIAN.denoise, noise, schedule, no_noise)

    torch.testing.assert_close(samples, exact_sample(noise, schedule, 0.002), rtol=10 * tolerance, atol=10 * tolerance)


def test_samples_of_a_mixture_keep_their_quantiles() -> None:
    """In one dimension paths don't cross: the flow is known, from noise to the noise that is left, then denoised."""
    schedule, noise = Cosine(), random_latents("z", 1)
    of_data, of_noise = (math.tan(angle) for angle in angle_range(schedule, 0.01))
    samples = ProbabilityFlow(DormandPrince(1e-7, 1e-7), sigma_min=0.01)(TWO_PEAKS.denoise, noise, schedule, no_noise)
    carried = TWO_PEAKS.flow(noise * of_noise, of_noise, of_data)

    expected = TWO_PEAKS.denoise(carried, noise.new_ones(1), noise.new_full((1,), of_data)).x0
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_velocity_is_song_s_equation_13(schedule: NoiseSchedule) -> None:
    """The change of xt = sqrt(alpha^2 + sigma^2) y along t, of which the angle is a function, is that of eq. 13."""
    # Off the corners of tables.
    t = (torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64) + 1e-5).requires_grad_()
    xt = random_latents("xt")
    alpha, sigma = schedule.alpha_sigma(t)
    scale, angle = torch.hypot(alpha, sigma), torch.atan2(sigma, alpha)
    (scale_slope,) = torch.autograd.grad(scale.sum(), t, retain_graph=True)
    (angle_slope,) = torch.autograd.grad(angle.sum(), t)
    t, alpha, sigma, scale, angle = (level.detach() for level in (t, alpha, sigma, scale, angle))

    y = xt / over_latents(scale)
    v = velocity(GAUSSIAN.denoise, schedule, y, angle)
    ours = over_latents(scale_slope) * y + over_latents(scale * angle_slope) * v

    score = (over_latents(alpha) * GAUSSIAN.denoise(xt, alpha, sigma).x0 - xt) / over_latents(sigma) ** 2
    drift, diffusion = schedule.drift_diffusion(t)
    torch.testing.assert_close(ours, over_latents(drift) * xt - over_latents(diffusion) / 2 * score)


def test_a_clip_does_not_depend_on_the_others() -> None:
    noise = random_latents("z")
    together = ProbabilityFlow()(GAUSSIAN.denoise, noise, Cosine(), no_noise)
    alone = ProbabilityFlow()(GAUSSIAN.denoise, noise[2:3], Cosine(), no_noise)

    torch.testing.assert_close(together[2:3], alone, rtol=1e-12, atol=1e-12)


def test_steps_are_reported_with_their_denoised_latents() -> None:
    reported: list[tuple[int, Tensor]] = []
    sampler = ProbabilityFlow(DormandPrince(1e-5, 1e-5))
    noise = random_latents("z")
    samples = sampler(GAUSSIAN.denoise, noise, Cosine(), no_noise, lambda *step: reported.append(step))

    assert sampler.num_steps is None
    assert [number for number, _ in reported] == list(range(1, len(reported) + 1))
    torch.testing.assert_close(reported[0][1], torch.full_like(noise, MEAN), rtol=0, atol=0.1)
    torch.testing.assert_close(reported[-1][1], samples)


@pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding(), RectifiedFlow()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_is_no_obstacle(schedule: NoiseSchedule, dtype: torch.dtype) -> None:
    noise = random_latents("z").float()

    def rounded(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(GAUSSIAN.denoise(xt, alpha, sigma).x0.to(dtype).float())

    samples = ProbabilityFlow()(rounded, noise, schedule, no_noise)
    torch.testing.assert_close(
        samples, exact_sample(noise, schedule, 0.002), rtol=0.01 + 2 * torch.finfo(dtype).eps, atol=0.01
    )


def test_sigma_min_beyond_the_noise_of_the_schedule_is_refused() -> None:
    message = r"^sigma_min must be > 0 and below the noise of the schedule's end, 80, but is "
    for sigma_min in (0.0, 80.0):
        with pytest.raises(ValueError, match=message + str(sigma_min)):
            ProbabilityFlow(sigma_min=sigma_min)(GAUSSIAN.denoise, random_latents("z"), VarianceExploding(), no_noise)
