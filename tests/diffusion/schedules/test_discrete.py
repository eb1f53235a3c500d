"""Tables of betas against the chain they stand for, and against diffusers."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from torch import Tensor

from vdm.diffusion.schedules.discrete import BetaTable, LinearBetas, ScaledLinearBetas, SquaredCosineBetas

TABLES: list[BetaTable] = [LinearBetas(), ScaledLinearBetas(), SquaredCosineBetas(), LinearBetas(1), LinearBetas(10)]


def _at_timesteps(schedule: BetaTable) -> tuple[Tensor, Tensor]:
    num_timesteps = schedule.num_timesteps
    return schedule.alpha_sigma(torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps)


@pytest.mark.parametrize("schedule", TABLES, ids=str)
def test_timestep_k_has_the_noise_of_the_first_k_steps_of_the_chain(schedule: BetaTable) -> None:
    """Ho et al. 2020, eq. 2: x_k = sqrt(1 - beta_k) x_(k-1) + sqrt(beta_k) noise."""
    alpha, variance = 1.0, 0.0
    chain = [(alpha, variance)]
    for beta in schedule.betas().tolist():
        alpha, variance = (1 - beta) ** 0.5 * alpha, (1 - beta) * variance + beta
        chain.append((alpha, variance))
    expected = torch.tensor(chain, dtype=torch.float64)
    alphas, sigmas = _at_timesteps(schedule)

    torch.testing.assert_close(alphas, expected[:, 0], rtol=1e-9, atol=0)
    torch.testing.assert_close(sigmas**2, expected[:, 1], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (LinearBetas(), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (ScaledLinearBetas(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (SquaredCosineBetas(), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
    ids=str,
)
def test_betas_are_those_of_diffusers(schedule: BetaTable, options: dict[str, object]) -> None:
    """Which has them in fp32, so that those of the cosine, differences from 1, have an error of 6e-8."""
    peer = DDPMScheduler(num_train_timesteps=1000, **options)

    torch.testing.assert_close(schedule.betas(), peer.betas.double(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(_at_timesteps(schedule)[0][1:] ** 2, peer.alphas_cumprod.double(), rtol=1e-4, atol=1e-9)


def test_squared_cosine_has_the_alphas_of_nichol_and_dhariwal_until_betas_are_bounded() -> None:
    """Nichol & Dhariwal 2021, eq. 17: alpha^2 = f(k) / f(0), f(k) = cos^2((k / T + 0.008) / 1.008 pi / 2)."""
    alpha, _ = _at_timesteps(SquaredCosineBetas(1000))
    f = torch.cos((torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2

    torch.testing.assert_close(alpha[:-1] ** 2, f[:-1] / f[0], rtol=1e-9, atol=0)
    assert SquaredCosineBetas(1000).betas()[-1] == 0.999


@pytest.mark.parametrize("table", [LinearBetas, ScaledLinearBetas, SquaredCosineBetas])
def test_zero_terminal_snr_is_algorithm_1_as_in_diffusers(table: type[BetaTable]) -> None:
    """Lin et al. 2023: the last alpha becomes 0, the first stays; the peer's function runs in float64 here."""
    alphas, sigmas = _at_timesteps(table(zero_terminal_snr=True))
    peer = torch.cumprod(1 - rescale_zero_terminal_snr(table().betas()), 0).sqrt()

    torch.testing.assert_close(alphas[1:], peer, rtol=0, atol=1e-9)
    torch.testing.assert_close(alphas[1], _at_timesteps(table())[0][1], rtol=1e-12, atol=0)
    assert (alphas[-1], sigmas[-1]) == (0, 1)


def test_zero_terminal_snr_is_zero_in_fp32_too() -> None:
    alpha, sigma = LinearBetas(zero_terminal_snr=True).alpha_sigma(torch.ones(1))

    assert (alpha, sigma) == (0, 1)


def test_between_timesteps_variances_go_in_straight_lines() -> None:
    schedule = LinearBetas(4, zero_terminal_snr=True)
    alphas, sigmas = _at_timesteps(schedule)
    alpha, sigma = schedule.alpha_sigma((torch.arange(4, dtype=torch.float64) + 0.25) / 4)

    torch.testing.assert_close(alpha**2, 0.75 * alphas[:-1] ** 2 + 0.25 * alphas[1:] ** 2)
    torch.testing.assert_close(sigma**2, 0.75 * sigmas[:-1] ** 2 + 0.25 * sigmas[1:] ** 2)


@pytest.mark.parametrize("schedule", [*TABLES, ScaledLinearBetas(zero_terminal_snr=True)], ids=str)
def test_time_is_the_inverse_of_log_snr(schedule: BetaTable) -> None:
    t = torch.linspace(0, 1, 3001, dtype=torch.float64)[1:]
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, rtol=0, atol=1e-9)
    single = t.float()
    torch.testing.assert_close(schedule.time(schedule.log_snr(single)), single, rtol=0, atol=1e-6)


def test_what_lies_outside_the_table_is_taken_to_its_ends() -> None:
    log_snr = torch.tensor([torch.inf, 50.0, -50.0, -torch.inf])
    torch.testing.assert_close(LinearBetas().time(log_snr), torch.tensor([0.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (LinearBetas, {"num_timesteps": 0}, "num_timesteps must be at least 1, but is 0"),
        (
            LinearBetas,
            {"num_timesteps": 1, "zero_terminal_snr": True},
            "num_timesteps must be at least 2 with zero_terminal_snr, but is 1",
        ),
        (LinearBetas, {"beta_start": 0.0}, "beta_start and beta_end must lie between 0 and 1, .* are 0.0 and 0.02"),
        (ScaledLinearBetas, {"beta_end": 1.0}, "beta_start and beta_end must lie between 0 and 1, .* 0.00085 and 1.0"),
        (LinearBetas, {"beta_start": 0.1}, "beta_start and beta_end .*, beta_start not above beta_end, but are 0.1"),
        (SquaredCosineBetas, {"offset": -1.0}, "offset must be >= 0, but is -1.0"),
        (SquaredCosineBetas, {"max_beta": 1.0}, "max_beta must lie between 0 and 1, but is 1.0"),
    ],
)
def test_impossible_tables_are_refused(table: type[BetaTable], values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}.*$"):
        table(**values)
