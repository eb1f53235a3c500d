"""The stochastic differential equation of each schedule."""

import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss

from tests.diffusion.schedules.every_schedule import EVERY_SCHEDULE, INNER_TIMES
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.discrete import BetaTable, LinearBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving

T = INNER_TIMES
BETA = 0.1 + T * (20.0 - 0.1)
INTEGRAL = 0.1 * T + (20.0 - 0.1) * T**2 / 2
SIGMA = 0.01 * 5000.0**T
CLOSED_FORMS = [
    (VariancePreserving(), -BETA / 2, BETA),  # Song et al. 2021, eq. 11
    (SubVariancePreserving(), -BETA / 2, BETA * (1 - torch.exp(-2 * INTEGRAL))),  # eq. 12
    (VarianceExploding(0.01, 50.0), torch.zeros_like(T), 2 * math.log(5000.0) * SIGMA**2),  # eq. 30
    (RectifiedFlow(), -1 / (1 - T), 2 * T / (1 - T)),  # from f = d log alpha / dt, g^2 = d sigma^2 / dt - 2 f sigma^2
]


@pytest.mark.parametrize(("schedule", "drift", "diffusion"), CLOSED_FORMS, ids=[str(row[0]) for row in CLOSED_FORMS])
def test_drift_and_diffusion_are_those_of_the_paper(
    schedule: NoiseSchedule, drift: torch.Tensor, diffusion: torch.Tensor
) -> None:
    f, g_squared = schedule.drift_diffusion(T)

    torch.testing.assert_close(f, drift, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(g_squared, diffusion, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_moments_of_the_equation_are_the_marginals(schedule: NoiseSchedule) -> None:
    """The moments obey d mean / dt = f mean and d variance / dt = 2 f variance + g^2.

    Solved by variation of constants, log alpha grows by the integral of f and sigma^2 / alpha^2 by that of
    g^2 / alpha^2; both by Gauss-Legendre quadrature on pieces inside of which tables have no kinks.
    """
    if isinstance(schedule, BetaTable):
        schedule = type(schedule)(20, schedule.zero_terminal_snr)
    edges = torch.arange(1, 20, dtype=torch.float64) / 20
    nodes, weights = map(torch.from_numpy, leggauss(20))
    times = (edges[:-1, None] + (nodes + 1) / 40).flatten()
    f, g_squared = schedule.drift_diffusion(times)
    growth = (f.reshape(-1, 20) @ weights / 40).cumsum(0)
    noise = ((g_squared / schedule.alpha_sigma(times)[0] ** 2).reshape(-1, 20) @ weights / 40).cumsum(0)
    alpha, sigma = schedule.alpha_sigma(edges)

    torch.testing.assert_close(growth, alpha[1:].log() - alpha[0].log(), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(noise, ((sigma / alpha) ** 2)[1:] - ((sigma / alpha) ** 2)[0], rtol=1e-7, atol=1e-12)


def test_drift_keeps_its_digits_in_fp32_where_there_is_hardly_any_noise() -> None:
    """beta / 2 at t = 1e-6, where alpha is 1 to the last digit of fp32."""
    t = torch.tensor([1e-6, 1e-4, 1e-2])
    drift, diffusion = VariancePreserving().drift_diffusion(t)
    beta = 0.1 + t * (20.0 - 0.1)

    torch.testing.assert_close(drift, -beta / 2, rtol=1e-5, atol=0)
    torch.testing.assert_close(diffusion, beta, rtol=1e-5, atol=0)


def test_between_timesteps_a_table_s_drift_is_that_of_its_beta() -> None:
    """With alpha^2 in a line over a step of length 1 / T, d log alpha / dt = -beta T / 2 at the step's beginning."""
    table = LinearBetas(10, beta_start=0.01, beta_end=0.3)
    drift, _ = table.drift_diffusion(torch.arange(10, dtype=torch.float64) / 10 + 1e-12)

    torch.testing.assert_close(drift[1:], -table.betas()[1:] * 10 / 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_slope_of_log_snr_is_that_of_its_differences(schedule: NoiseSchedule) -> None:
    middles = T[:-1] + 0.0037  # at no timestep
    difference = (schedule.log_snr(middles + 1e-6) - schedule.log_snr(middles - 1e-6)) / 2e-6

    torch.testing.assert_close(schedule.log_snr_slope(middles), difference, rtol=1e-6, atol=0)
