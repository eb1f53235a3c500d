import math

import pytest
import torch

from vdm.diffusion.schedules import Cosine, Linear, NoiseSchedule, alpha_sigma_of_log_snr, log_snr

SCHEDULES = [Cosine(), Cosine(-5.0, 8.0), Linear(), Linear(1e-3, 4.0)]
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_variance_is_preserved_and_log_snr_falls_with_time(schedule: NoiseSchedule) -> None:
    alpha, sigma = schedule.alpha_sigma(TIMES)

    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(TIMES))
    assert (log_snr(alpha, sigma).diff() < 0).all()


@pytest.mark.parametrize("bounds", [(-20.0, 20.0), (-5.0, 8.0)])
def test_cosine_runs_from_the_largest_to_the_smallest_log_snr(bounds: tuple[float, float]) -> None:
    values = log_snr(*Cosine(*bounds).alpha_sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)))

    torch.testing.assert_close(values, torch.tensor(bounds[::-1], dtype=torch.float64), rtol=1e-9, atol=0)


def test_cosine_without_bounds_is_a_quarter_of_a_circle() -> None:
    alpha, sigma = Cosine(-60.0, 60.0).alpha_sigma(TIMES)

    torch.testing.assert_close(alpha, torch.cos(math.pi / 2 * TIMES), rtol=0, atol=1e-12)
    torch.testing.assert_close(sigma, torch.sin(math.pi / 2 * TIMES), rtol=0, atol=1e-12)


def test_cosine_is_minus_two_log_tan_of_a_line() -> None:
    """Ho et al. 2022: log-SNR = -2 log tan(a t + b), b = arctan(exp(-max / 2)), a = arctan(exp(-min / 2)) - b."""
    b = math.atan(math.exp(-20 / 2))
    a = math.atan(math.exp(20 / 2)) - b

    torch.testing.assert_close(log_snr(*Cosine().alpha_sigma(TIMES)), -2 * torch.log(torch.tan(a * TIMES + b)))


def test_linear_equals_the_formula_of_kingma_et_al() -> None:
    """Kingma et al. 2021: sigma^2 = sigmoid(log(expm1(1e-4 + 10 t^2))), hence alpha^2 = exp(-(1e-4 + 10 t^2))."""
    alpha, sigma = Linear().alpha_sigma(TIMES)

    torch.testing.assert_close(alpha**2, torch.exp(-(1e-4 + 10 * TIMES**2)))
    torch.testing.assert_close(sigma**2, 1 - torch.exp(-(1e-4 + 10 * TIMES**2)), rtol=1e-9, atol=0)


def test_linear_is_the_limit_of_ddpm_s_thousand_steps() -> None:
    """Ho et al. 2020, section 4: beta from 1e-4 to 0.02 in T = 1000 steps; the limit differs by O(1 / T)."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    discrete = (1 - betas).cumprod(0).sqrt()
    alpha, _ = Linear().alpha_sigma(torch.arange(1, 1001, dtype=torch.float64) / 1000)

    torch.testing.assert_close(alpha, discrete, rtol=0, atol=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_fp32_is_close_to_float64_where_training_is(schedule: NoiseSchedule) -> None:
    alpha, sigma = schedule.alpha_sigma(TIMES.float())
    exact = log_snr(*schedule.alpha_sigma(TIMES))

    torch.testing.assert_close(log_snr(alpha, sigma).double(), exact, rtol=0, atol=0.02)


def test_alpha_and_sigma_of_a_log_snr_give_it_back() -> None:
    values = torch.linspace(-30, 30, 61, dtype=torch.float64)

    torch.testing.assert_close(log_snr(*alpha_sigma_of_log_snr(values)), values)


def test_mistaken_bounds_are_named() -> None:
    with pytest.raises(ValueError, match=r"^log_snr_min must lie below log_snr_max, but is 3\.0 against 3\.0$"):
        Cosine(3.0, 3.0)
    for arguments in ((0.0, 1.0), (1e-4, -1.0)):
        with pytest.raises(ValueError, match=r"^beta_min and beta_slope must be > 0, but are"):
            Linear(*arguments)
