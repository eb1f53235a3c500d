"""What holds for all noise schedules alike."""

import dataclasses
import math

import pytest
import torch

from tests.diffusion.schedules.every_schedule import EVERY_SCHEDULE, INNER_TIMES, TIMES, VARIANCE_PRESERVING
from vdm.diffusion.schedules.base import NoiseSchedule, log_snr
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.log_snr_linear import LogSNRLinear
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.variance_exploding import VarianceExploding


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_log_snr_falls_with_time_and_is_that_of_alpha_and_sigma(schedule: NoiseSchedule) -> None:
    expected = schedule.log_snr(TIMES)

    assert (expected.diff() < 0).all()
    torch.testing.assert_close(log_snr(*schedule.alpha_sigma(TIMES)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING, ids=str)
def test_variance_is_preserved(schedule: NoiseSchedule) -> None:
    alpha, sigma = schedule.alpha_sigma(TIMES)

    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(TIMES), rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_time_is_the_inverse_of_log_snr(schedule: NoiseSchedule) -> None:
    torch.testing.assert_close(schedule.time(schedule.log_snr(INNER_TIMES)), INNER_TIMES, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_noise_levels_beyond_the_ends_are_taken_to_the_ends_unless_the_schedule_goes_on(
    schedule: NoiseSchedule,
) -> None:
    beyond = torch.tensor([-300.0, 300.0], dtype=torch.float64)
    times = schedule.time(beyond)

    if isinstance(schedule, VarianceExploding | LogSNRLinear):
        torch.testing.assert_close(schedule.log_snr(times), beyond)
    else:
        torch.testing.assert_close(times, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


# Near both ends, where subtractions lose digits, down to the smallest steps of draws in fp32.
FP32_TIMES = torch.cat(
    [torch.tensor([2.0**-24, 1e-6, 1e-5, 1e-4, 1e-3]), TIMES.float(), 1 - torch.tensor([1e-3, 1e-4, 1e-5, 1e-6])]
)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_fp32_gives_alpha_within_5e_7_sigma_within_1e_6_of_itself_and_log_snr_within_1e_5(
    schedule: NoiseSchedule,
) -> None:
    """log-SNR up to t = 0.99; beyond, where alpha approaches 0, it is as exact as alpha is."""
    alpha, sigma = schedule.alpha_sigma(FP32_TIMES)
    exact_alpha, exact_sigma = schedule.alpha_sigma(FP32_TIMES.double())
    earlier = FP32_TIMES[(FP32_TIMES > 0) & (FP32_TIMES <= 0.99)]

    torch.testing.assert_close(alpha.double(), exact_alpha, rtol=0, atol=5e-7)
    torch.testing.assert_close(sigma.double(), exact_sigma, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        schedule.log_snr(earlier).double(), schedule.log_snr(earlier.double()), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ends_are_never_nan(schedule: NoiseSchedule, dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    alpha, sigma = schedule.alpha_sigma(ends)

    assert alpha.dtype == sigma.dtype == dtype
    assert torch.isfinite(torch.stack([alpha, sigma])).all()
    assert (alpha >= 0).all()
    assert (sigma >= 0).all()
    assert not schedule.time(schedule.log_snr(ends)).isnan().any()


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_first_use_for_inference_or_on_another_device_leaves_no_mark(
    schedule: NoiseSchedule, dtype: torch.dtype
) -> None:
    """Tables are made at first use; they must then be good for training too."""
    fresh = dataclasses.replace(schedule)
    with torch.inference_mode(), torch.device("meta"):
        t = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        while_inferring = torch.stack([fresh.log_snr(t), *fresh.drift_diffusion(t)])
    t = torch.full((1,), 0.5, dtype=dtype, requires_grad=True)
    fresh.log_snr(t).sum().backward()

    assert t.grad is not None
    assert t.grad.item() == fresh.log_snr_slope(t).item() < 0
    assert torch.equal(torch.stack([fresh.log_snr(t), *fresh.drift_diffusion(t)]), while_inferring)


def test_alpha_and_sigma_of_a_log_snr_give_it_back() -> None:
    values = torch.linspace(-30, 30, 61, dtype=torch.float64)

    for schedule in EVERY_SCHEDULE:
        torch.testing.assert_close(log_snr(*schedule.at_log_snr(values)), values, rtol=1e-9, atol=1e-9)


def test_shifts_add_up() -> None:
    twice, once = Shifted(Shifted(Cosine(), -1.0), 0.25), Shifted(Cosine(), -0.75)

    torch.testing.assert_close(twice.log_snr(TIMES), once.log_snr(TIMES), rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [128, 256, 512])
def test_shifted_log_snr_after_averaging_down_to_64_pixels_is_that_of_the_schedule(side: int) -> None:
    """Hoogeboom et al. 2023, section 3.1: averaging s x s pixels divides sigma by s and leaves the signal."""
    alpha, sigma = Shifted(Cosine(), 2 * math.log(64 / side)).alpha_sigma(INNER_TIMES)

    torch.testing.assert_close(log_snr(alpha, sigma / (side / 64)), Cosine().log_snr(INNER_TIMES), rtol=1e-9, atol=1e-9)
