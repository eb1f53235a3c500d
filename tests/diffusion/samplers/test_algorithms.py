"""Samplers against their papers' algorithms, transcribed in the papers' own variables, and against each other."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import random_latents
from tests.diffusion.samplers.closed_forms import DEVIATION, GAUSSIAN, MEAN, TWO_PEAKS
from vdm.diffusion.denoiser import Denoised
from vdm.diffusion.samplers.base import GridSampler
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.euler_maruyama import EulerMaruyama
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.predictor_corrector import PredictorCorrector
from vdm.diffusion.samplers.spacing import Karras, Linspace, Trailing, UniformLogSNR
from vdm.diffusion.samplers.unipc import UniPC
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.shapes import Latents, Level

NUM_STEPS = 8


def _draw(number: int) -> Tensor:
    return random_latents(f"draw {number}")


def _sample(sampler: GridSampler, schedule: NoiseSchedule) -> Tensor:
    return sampler(TWO_PEAKS.denoise, random_latents("z"), schedule, _draw)


def _denoised(xt: Tensor, alpha: float, sigma: float) -> Tensor:
    return TWO_PEAKS.denoise(xt, xt.new_full((len(xt),), alpha), xt.new_full((len(xt),), sigma)).x0


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("s_churn", [0.0, 2.0, 100.0])
@pytest.mark.parametrize(("s_tmin", "s_tmax"), [(0.0, math.inf), (0.05, 50.0)])
def test_heun_and_euler_follow_karras_et_al(second_order: bool, s_churn: float, s_tmin: float, s_tmax: float) -> None:
    """Karras et al. 2022, algorithm 2, line by line."""
    sigmas = [*((80 ** (1 / 7) + i / 7 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(NUM_STEPS)), 0.0]
    x, draws = sigmas[0] * random_latents("z"), 0
    for i in range(NUM_STEPS):
        gamma = min(s_churn / NUM_STEPS, math.sqrt(2) - 1) if s_tmin <= sigmas[i] <= s_tmax else 0.0
        sigma_hat, x_hat = sigmas[i] + gamma * sigmas[i], x
        if gamma > 0:
            draws += 1
            x_hat = x + math.sqrt(sigma_hat**2 - sigmas[i] ** 2) * 1.003 * _draw(draws)
        d = (x_hat - _denoised(x_hat, 1.0, sigma_hat)) / sigma_hat
        x = x_hat + (sigmas[i + 1] - sigma_hat) * d
        if second_order and sigmas[i + 1] != 0:
            d_prime = (x - _denoised(x, 1.0, sigmas[i + 1])) / sigmas[i + 1]
            x = x_hat + (sigmas[i + 1] - sigma_hat) * (d / 2 + d_prime / 2)

    sampler = (Heun if second_order else Euler)(
        NUM_STEPS, Karras(), s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax, s_noise=1.003
    )

    torch.testing.assert_close(_sample(sampler, VarianceExploding(0.002, 80.0)), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_corrections", [0, 1, 2])
def test_predictor_corrector_follows_song_et_al_where_variance_explodes(num_corrections: int) -> None:
    """Song et al. 2021, algorithms 2 and 4, the corrections first as in their code."""
    sigmas, r = [0.01 * 5000.0 ** (i / (NUM_STEPS - 1)) for i in reversed(range(NUM_STEPS))], 0.16
    x, draws = sigmas[0] * random_latents("z"), 0
    for i, sigma in enumerate(sigmas):
        for _ in range(num_corrections):
            draws += 1
            g, z = (_denoised(x, 1.0, sigma) - x) / sigma**2, _draw(draws)
            size = 2 * (r * z.flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)) ** 2
            size = size[:, None, None, None, None]
            x = x + size * g + torch.sqrt(2 * size) * z
        score = (_denoised(x, 1.0, sigma) - x) / sigma**2
        if i == NUM_STEPS - 1:
            x = x + sigma**2 * score
        else:
            draws += 1
            growth = sigma**2 - sigmas[i + 1] ** 2
            x = x + growth * score + math.sqrt(growth) * _draw(draws)

    sampler = PredictorCorrector(NUM_STEPS, UniformLogSNR(), num_corrections=num_corrections, snr=r)

    torch.testing.assert_close(_sample(sampler, VarianceExploding(0.01, 50.0)), x, rtol=1e-9, atol=1e-9)


def test_predictor_corrector_follows_song_et_al_where_variance_is_preserved() -> None:
    """Song et al. 2021, algorithms 3 and 5, the corrections first as in their code."""
    schedule, r = VariancePreserving(), 0.16
    times = torch.linspace(1, 0.001, NUM_STEPS, dtype=torch.float64)
    alphas_cumprod = (schedule.alpha_sigma(times)[0] ** 2).tolist()
    x, draws = math.sqrt(1 - alphas_cumprod[0]) * random_latents("z"), 0
    for i, alpha_cumprod in enumerate(alphas_cumprod):
        before = alphas_cumprod[i + 1] if i + 1 < NUM_STEPS else 1.0
        beta, alpha, sigma = 1 - alpha_cumprod / before, math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod)
        draws += 1
        g, z = (alpha * _denoised(x, alpha, sigma) - x) / sigma**2, _draw(draws)
        size = 2 * (1 - beta) * (r * z.flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1)) ** 2
        size = size[:, None, None, None, None]
        x = x + size * g + torch.sqrt(2 * size) * z
        if i == NUM_STEPS - 1:
            x = _denoised(x, alpha, sigma)
        else:
            draws += 1
            score = (alpha * _denoised(x, alpha, sigma) - x) / sigma**2
            x = (2 - math.sqrt(1 - beta)) * x + beta * score + math.sqrt(beta) * _draw(draws)

    torch.testing.assert_close(
        _sample(PredictorCorrector(NUM_STEPS, Linspace(), snr=r), schedule), x, rtol=1e-9, atol=1e-9
    )


def test_euler_maruyama_follows_song_et_al() -> None:
    """Song et al. 2021, eq. 6 with f and g of eq. 11."""
    times = [1 - i * 0.999 / (NUM_STEPS - 1) for i in range(NUM_STEPS)]

    def mixed(t: float) -> tuple[float, float]:
        integral = 0.1 * t + 19.9 * t**2 / 2
        return math.exp(-integral / 2), math.sqrt(1 - math.exp(-integral))

    x = mixed(1.0)[1] * random_latents("z")
    for number, (t, t_next) in enumerate(pairwise(times), start=1):
        alpha, sigma = mixed(t)
        beta, dt = 0.1 + 19.9 * t, t_next - t
        score = (alpha * _denoised(x, alpha, sigma) - x) / sigma**2
        x = x + (-beta / 2 * x - beta * score) * dt + math.sqrt(beta * -dt) * _draw(number)
    x = _denoised(x, *mixed(times[-1]))

    torch.testing.assert_close(
        _sample(EulerMaruyama(NUM_STEPS, Linspace()), VariancePreserving()), x, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_predictors_of_unipc_integrate_polynomials_in_log_snr_exactly(order: int) -> None:
    """Lambda is half the log-SNR. Between two levels, ``x/sigma`` grows by the integral of ``e^lambda x0(lambda)``.

    With evaluations at p levels a predictor of order 3 is exact for polynomials of degree p - 1; that of order 2
    replaces its coefficient by 1/2, exact only in the limit (Zhao et al. 2023), and is not.
    """
    degree = {1: 0, 2: 0, 3: 2}[order]

    def x0(half_log_snr: float) -> float:
        return half_log_snr**degree - 0.3

    def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        return Denoised(torch.full_like(xt, x0(math.log(alpha[0] / sigma[0]))))

    sampler = UniPC(6, Karras(0.1, 5.0), order=order, corrector=False)
    grid = sampler.grid(VariancePreserving())
    seen: list[Tensor] = []

    def watch(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        seen.append(xt / sigma[:, None, None, None, None])
        return denoise(xt, alpha, sigma)

    sampler(watch, random_latents("z"), VariancePreserving(), _draw)
    # The third step is the first with three evaluations, and is not yet shortened at the end.
    begin, end = grid[2].half_log_snr, grid[3].half_log_snr
    nodes = torch.linspace(begin, end, 2001, dtype=torch.float64)
    integrand = torch.exp(nodes) * torch.tensor([x0(float(node)) for node in nodes], dtype=torch.float64)
    weights = torch.tensor([1.0, *[4.0, 2.0] * 999, 4.0, 1.0], dtype=torch.float64)  # Simpson's rule
    integral = float((weights * integrand).sum()) * (end - begin) / 2000 / 3

    torch.testing.assert_close(seen[3] - seen[2], torch.full_like(seen[2], integral), rtol=1e-9, atol=1e-9)


SAME: dict[str, tuple[Callable[[], GridSampler], Callable[[], GridSampler]]] = {
    "euler without churn, and ddim": (lambda: Euler(7, Karras()), lambda: DDIM(7, Karras())),
    "ddim with full noise, and ddpm with the posterior's variance": (
        lambda: DDIM(7, Karras(), eta=1.0),
        lambda: DDPM(7, Karras(), gamma=0.0),
    ),
    "predictor of order 1, and ddim": (
        lambda: UniPC(7, Karras(), order=1, corrector=False),
        lambda: DDIM(7, Karras()),
    ),
    "predictor of order 2 with bh2, and dpm-solver++": (
        lambda: UniPC(7, Karras(), order=2, corrector=False),
        lambda: DPMSolverPP2M(7, Karras()),
    ),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("schedule", [VariancePreserving(), VarianceExploding()], ids=str)
def test_what_is_the_same_by_two_names_is_the_same(name: str, schedule: NoiseSchedule) -> None:
    left, right = SAME[name]

    torch.testing.assert_close(_sample(left(), schedule), _sample(right(), schedule), rtol=1e-9, atol=1e-9)


def test_euler_on_a_rectified_flow_steps_along_the_velocity() -> None:
    """Liu et al. 2023: ``dx = v dt`` with ``v = E[noise - x0 | xt] = (xt - x0) / t``, from t = 1 in equal steps."""
    xt = random_latents("z")
    for i in range(NUM_STEPS):
        t = 1 - i / NUM_STEPS
        xt = xt - (xt - _denoised(xt, 1 - t, t)) / t / NUM_STEPS

    torch.testing.assert_close(_sample(Euler(NUM_STEPS, Trailing()), RectifiedFlow()), xt, rtol=1e-9, atol=1e-9)


def test_forward_variance_is_exact_for_standard_normal_data() -> None:
    """Ho et al. 2020, section 3.2: the variance of the forward step is optimal for x0 ~ N(0, I), in any step size."""
    impulses = torch.eye(8, dtype=torch.float64)[:, :, None, None, None, None]
    best = type(GAUSSIAN)((1.0,), (0.0,), (1.0,))
    variances = []

    def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        variances.append((xt**2).sum().item())
        return best.denoise(xt, alpha, sigma)

    schedule = Cosine(-10, 10)
    _, sigma = schedule.alpha_sigma(torch.ones(1, dtype=torch.float64))
    DDPM(7, gamma=1.0)(denoise, impulses[0] / sigma, schedule, lambda step: impulses[step])

    assert variances == pytest.approx([1.0] * 7)


def test_learned_variance_replaces_gamma() -> None:
    """Nichol & Dhariwal 2021, eq. 15, by latents each with a share of its own."""
    share = torch.rand(random_latents("z").shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sample(shares: Tensor | None, gamma: float) -> Tensor:
        def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            return Denoised(_denoised(xt, float(alpha[0]), float(sigma[0])), shares)

        return DDPM(2, Karras(0.5, 5.0), gamma=gamma)(denoise, random_latents("z"), VariancePreserving(), _draw)

    torch.testing.assert_close(sample(torch.full_like(share, 0.4), 1.0), sample(None, 0.4))
    # Each number of these latents is sampled alone, and 0.4 is any share's stand-in.
    index = (1, 0, 2, 3, 4)
    torch.testing.assert_close(sample(share, 0.0)[index], sample(None, float(share[index]))[index])


def test_ddim_carries_noise_to_the_flow_of_the_data() -> None:
    """For Gaussian data the flow takes noise z to mean + deviation z, nearly, where the grid begins in noise alone."""
    noise = random_latents("z")
    sample = DDIM(400)(GAUSSIAN.denoise, noise, Cosine(), _draw)

    torch.testing.assert_close(sample, MEAN + DEVIATION * noise, rtol=0, atol=0.02)
