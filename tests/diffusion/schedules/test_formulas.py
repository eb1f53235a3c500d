"""Each schedule against the formula of its paper."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.diffusion.schedules.every_schedule import INNER_TIMES, TIMES
from vdm.diffusion.schedules.base import log_snr
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas
from vdm.diffusion.schedules.log_snr_linear import LogSNRLinear
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.sigmoid import Sigmoid
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving

ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("bounds", [(-20.0, 20.0), (-5.0, 8.0)])
def test_cosine_runs_from_the_largest_to_the_smallest_log_snr(bounds: tuple[float, float]) -> None:
    values = log_snr(*Cosine(*bounds).alpha_sigma(ENDS))

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


def _integral_of_beta(t: torch.Tensor) -> torch.Tensor:
    return 0.1 * t + (20.0 - 0.1) * t**2 / 2


def test_variance_preserving_has_the_marginals_of_song_et_al() -> None:
    """Song et al. 2021, eq. 29: mean exp(-B/2) x0, variance 1 - exp(-B)."""
    alpha, sigma = VariancePreserving(0.1, 20.0).alpha_sigma(TIMES)

    torch.testing.assert_close(alpha, torch.exp(-_integral_of_beta(TIMES) / 2), rtol=1e-9, atol=0)
    torch.testing.assert_close(sigma**2, 1 - torch.exp(-_integral_of_beta(TIMES)), rtol=1e-9, atol=0)


def test_sub_variance_preserving_has_the_marginals_of_song_et_al() -> None:
    """Song et al. 2021, eq. 29: mean exp(-B/2) x0, variance (1 - exp(-B))^2."""
    alpha, sigma = SubVariancePreserving(0.1, 20.0).alpha_sigma(TIMES)

    torch.testing.assert_close(alpha, torch.exp(-_integral_of_beta(TIMES) / 2), rtol=1e-9, atol=0)
    torch.testing.assert_close(sigma, 1 - torch.exp(-_integral_of_beta(TIMES)), rtol=1e-9, atol=0)


def test_variance_preserving_is_the_limit_of_ddpm_s_many_small_steps() -> None:
    """Song et al. 2021, appendix B: betas of 0.1 / T to 20 / T; the difference is O(1 / T)."""
    errors = []
    for num_timesteps in (1000, 10000):
        table = LinearBetas(num_timesteps, beta_start=0.1 / num_timesteps, beta_end=20.0 / num_timesteps)
        errors.append((table.alpha_sigma(TIMES)[0] - VariancePreserving().alpha_sigma(TIMES)[0]).abs().max().item())

    assert errors[0] < 5e-3
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


@pytest.mark.parametrize(("sigma_min", "sigma_max"), [(0.002, 80.0), (0.002, 700.0), (0.01, 50.0)])
def test_variance_exploding_leaves_data_and_multiplies_noise(sigma_min: float, sigma_max: float) -> None:
    """Song et al. 2021, eq. 31: sigma_min (sigma_max / sigma_min)^t, also before 0 and after 1."""
    times = torch.linspace(-0.5, 1.5, 21, dtype=torch.float64)
    schedule = VarianceExploding(sigma_min, sigma_max)
    alpha, sigma = schedule.alpha_sigma(times)

    assert torch.equal(alpha, torch.ones_like(times))
    torch.testing.assert_close(sigma, sigma_min * (sigma_max / sigma_min) ** times, rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.time(-2 * sigma.log()), times, rtol=0, atol=1e-12)


def test_rectified_flow_goes_straight_from_data_to_noise() -> None:
    alpha, sigma = RectifiedFlow().alpha_sigma(TIMES)

    torch.testing.assert_close(alpha, 1 - TIMES, rtol=0, atol=1e-15)
    torch.testing.assert_close(sigma, TIMES, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_shifted_rectified_flow_shifts_timesteps_as_sd3_and_diffusers_do(shift: float) -> None:
    """Esser et al. 2024, eq. 23: t' = s t / (1 + (s - 1) t)."""
    schedule = Shifted(RectifiedFlow(), -2 * math.log(shift))
    _, sigma = schedule.alpha_sigma(TIMES)
    _, at_timesteps = schedule.alpha_sigma(torch.arange(1000, 0, -1, dtype=torch.float64) / 1000)

    torch.testing.assert_close(sigma, shift * TIMES / (1 + (shift - 1) * TIMES), rtol=1e-12, atol=1e-15)
    peer = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas  # in fp32
    torch.testing.assert_close(at_timesteps, peer.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("start", "end", "tau"), [(-3.0, 3.0, 1.0), (-3.0, 3.0, 0.5), (0.0, 3.0, 0.3)])
def test_sigmoid_equals_algorithm_1_of_chen(start: float, end: float, tau: float) -> None:
    """Chen 2023, algorithm 1: a sigmoid of the line from start to end over tau, from its value at 0 to that at 1."""
    first, last = (torch.sigmoid(torch.tensor(x / tau, dtype=torch.float64)) for x in (start, end))
    values = torch.sigmoid((INNER_TIMES * (end - start) + start) / tau)
    alpha, _ = Sigmoid(start, end, tau).alpha_sigma(INNER_TIMES)

    torch.testing.assert_close(alpha**2, (last - values) / (last - first), rtol=1e-9, atol=0)


def test_sigmoid_runs_from_data_to_the_smallest_signal() -> None:
    alpha, _ = Sigmoid(clip_min=1e-6).alpha_sigma(ENDS)

    torch.testing.assert_close(alpha**2, torch.tensor([1.0, 1e-6], dtype=torch.float64), rtol=1e-9, atol=0)


def test_log_snr_linear_is_a_line_between_its_ends() -> None:
    """Kingma et al. 2021, appendix H: -log-SNR starts out from -13.3 to 5."""
    torch.testing.assert_close(log_snr(*LogSNRLinear().alpha_sigma(TIMES)), 13.3 * (1 - TIMES) - 5 * TIMES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(3.0, 3.0), r"log_snr_min must lie below log_snr_max, but is 3\.0 against 3\.0"),
        (lambda: LogSNRLinear(1.0, 0.0), r"log_snr_min must lie below log_snr_max, but is 1\.0 against 0\.0"),
        (lambda: VariancePreserving(0.0, 1.0), "beta_min and beta_max must be > 0, beta_min not above .*, but are 0.0"),
        (lambda: SubVariancePreserving(2.0, 1.0), "beta_min and beta_max must be > 0, .* but are 2.0 and 1.0"),
        (lambda: VarianceExploding(0.0, 1.0), r"sigma_min must be > 0 and below sigma_max, but is 0\.0 against 1\.0"),
        (lambda: VarianceExploding(2.0, 2.0), r"sigma_min must be > 0 and below sigma_max, but is 2\.0 against 2\.0"),
        (lambda: Sigmoid(start=3.0), r"start must lie below end, but is 3\.0 against 3\.0"),
        (lambda: Sigmoid(tau=0.0), r"tau must be > 0, but is 0\.0"),
        (lambda: Sigmoid(clip_min=0.0), r"clip_min must lie between 0 and 1, but is 0\.0"),
    ],
)
def test_impossible_values_are_named_with_what_is_allowed(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=rf"^{message}.*$"):
        make()
