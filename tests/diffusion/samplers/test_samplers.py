"""What holds for every sampler."""

import re
from collections.abc import Callable
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.diffusion.latents import random_latents
from tests.diffusion.samplers.closed_forms import GAUSSIAN, TWO_PEAKS
from tests.diffusion.samplers.every_sampler import EVERY, NEEDING_SIGNAL, ODE
from vdm.assembly.model import step_noise
from vdm.diffusion.denoiser import Denoised, Denoiser
from vdm.diffusion.noise_priors import Independent
from vdm.diffusion.parameterizations import EDM, X0, Eps, LogSNR, Parameterization, V, Velocity
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.euler_maruyama import EulerMaruyama
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.predictor_corrector import PredictorCorrector
from vdm.diffusion.samplers.spacing import Karras, Linspace, Spacing, Trailing, UniformLogSNR
from vdm.diffusion.samplers.unipc import UniPC
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.schedules.zero_terminal_snr import ZeroTerminalSNR
from vdm.diffusion.shapes import Latents, Level, over_latents
from vdm.types import Conditioning

SIGNAL_ENDS: dict[str, tuple[NoiseSchedule, Spacing]] = {
    "cosine": (Cosine(), Trailing()),
    "vp": (VariancePreserving(), Linspace()),
    "sub-vp": (SubVariancePreserving(), Karras()),
    "ve": (VarianceExploding(0.002, 700.0), Karras()),
}
PURE_NOISE: dict[str, tuple[NoiseSchedule, Spacing]] = {
    "rectified flow": (RectifiedFlow(), Trailing()),
    "zero terminal snr": (ZeroTerminalSNR(Cosine()), Trailing()),
    "betas with zero terminal snr": (LinearBetas(zero_terminal_snr=True), Trailing()),
}
PARAMETERIZATIONS = [Eps(), X0(), V(), Velocity(), EDM()]


def _draws(dtype: torch.dtype = torch.float64) -> Callable[[int], Tensor]:
    return lambda number: random_latents(f"draw {number}", dtype=dtype)


@pytest.mark.parametrize("name", EVERY)
def test_each_step_is_reported_once_with_its_denoised_latents(name: str) -> None:
    reported: list[tuple[int, Tensor]] = []
    sample = EVERY[name](5, Linspace())(
        GAUSSIAN.denoise,
        random_latents("z"),
        VariancePreserving(),
        _draws(),
        lambda step, x0: reported.append((step, x0)),
    )

    assert [step for step, _ in reported] == [1, 2, 3, 4, 5]
    assert torch.equal(reported[-1][1], sample)


@pytest.mark.parametrize("name", EVERY)
def test_network_is_called_as_often_as_documented(name: str) -> None:
    calls = count()

    def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        next(calls)
        return GAUSSIAN.denoise(xt, alpha, sigma)

    EVERY[name](6, Linspace())(denoise, random_latents("z"), VariancePreserving(), _draws())

    assert next(calls) == {"heun": 11, "heun-churn": 11, "predictor_corrector": 12}.get(name, 6)


@pytest.mark.parametrize("name", EVERY)
def test_fp32_is_close_to_float64_over_many_steps(name: str) -> None:
    samples = [
        EVERY[name](100, Linspace())(
            GAUSSIAN.denoise, random_latents("z", dtype=dtype), VariancePreserving(), _draws(dtype)
        ).double()
        for dtype in (torch.float32, torch.float64)
    ]

    torch.testing.assert_close(samples[0], samples[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_a_clip_does_not_depend_on_the_batch_that_it_is_made_in(name: str) -> None:
    def sample(clips: list[int]) -> Tensor:
        noise = random_latents("z", 5)[clips]
        draw_noise = step_noise(Independent(), 0, clips, noise)
        return EVERY[name](6, Linspace())(TWO_PEAKS.denoise, noise, VariancePreserving(), draw_noise)

    torch.testing.assert_close(sample([3]), sample([0, 1, 2, 3, 4])[3:4])
    torch.testing.assert_close(sample([4, 3]), sample([3, 4]).flip(0))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("schedule", [VarianceExploding(), SubVariancePreserving()], ids=str)
def test_every_parameterization_gives_the_same_samples(name: str, schedule: NoiseSchedule) -> None:
    sampler = EVERY[name](5, UniformLogSNR())
    expected = sampler(TWO_PEAKS.denoise, random_latents("z"), schedule, _draws())

    for parameterization in PARAMETERIZATIONS:
        denoiser = Denoiser(_perfect_network(parameterization, schedule), parameterization)
        sample = sampler(
            lambda xt, alpha, sigma, denoiser=denoiser: denoiser(xt, alpha, sigma, Conditioning()),
            random_latents("z"),
            schedule,
            _draws(),
        )
        torch.testing.assert_close(sample, expected, rtol=1e-7, atol=1e-7)


def _perfect_network(parameterization: Parameterization, schedule: NoiseSchedule) -> Callable[..., Tensor]:
    """Return what a network would have learned that is given its scaled input and ``c_noise`` only."""

    def network(seen: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
        log_snr = c_noise if isinstance(parameterization.c_noise, LogSNR) else -8 * c_noise
        alpha, sigma = schedule.at_log_snr(log_snr)
        xt = seen / over_latents(parameterization.c_in(alpha, sigma))
        x0 = TWO_PEAKS.denoise(xt, alpha, sigma).x0
        return parameterization.target(x0, (xt - over_latents(alpha) * x0) / over_latents(sigma), alpha, sigma)

    return network


ONE_OF_EACH = ["ddim", "ddpm-0.3", "heun-churn", "dpm_solver_pp_2m_sde", "unipc-3-bh1", *NEEDING_SIGNAL]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        (name, schedule)
        for name in ONE_OF_EACH
        for schedule in SIGNAL_ENDS | PURE_NOISE
        if schedule in SIGNAL_ENDS or name not in NEEDING_SIGNAL
    ],
)
def test_networks_in_half_precision_give_no_nan_at_any_step(name: str, schedule: str, dtype: torch.dtype) -> None:
    noise_schedule, spacing = (SIGNAL_ENDS | PURE_NOISE)[schedule]
    identity = torch.eye(2)[:, :, None, None, None]
    num_steps = 25 if name == "euler_maruyama" else 3  # an explicit method, which explodes in long steps

    for parameterization in PARAMETERIZATIONS[schedule in PURE_NOISE :]:  # Eps needs signal too
        perfect, steps = _perfect_network(parameterization, noise_schedule), list[Tensor]()

        def network(xt: Tensor, *arguments: object, perfect: Callable[..., Tensor] = perfect) -> Tensor:
            rounded = F.conv3d(xt, identity)
            assert rounded.dtype == dtype
            return F.conv3d(perfect(rounded.float(), *arguments), identity)

        denoiser = Denoiser(network, parameterization)

        def denoise(xt: Latents, alpha: Level, sigma: Level, denoiser: Denoiser = denoiser) -> Denoised:
            return denoiser(xt, alpha, sigma, Conditioning())

        with torch.autocast("cpu", dtype):
            sample = EVERY[name](num_steps, spacing)(
                denoise,
                random_latents("z", 1, torch.float32),
                noise_schedule,
                lambda number: random_latents(f"draw {number}", 1, torch.float32),
                lambda step, x0, steps=steps: steps.append(x0),
            )

        assert sample.dtype == torch.float32
        assert all(x0.isfinite().all() for x0 in [*steps, sample]), parameterization


@pytest.mark.parametrize("name", ODE)
def test_solvers_of_the_ode_draw_no_noise(name: str) -> None:
    def refuse(number: int) -> Tensor:
        raise AssertionError

    EVERY[name](5, Trailing())(GAUSSIAN.denoise, random_latents("z"), RectifiedFlow(), refuse)


@pytest.mark.parametrize("name", NEEDING_SIGNAL)
@pytest.mark.parametrize("schedule", PURE_NOISE)
def test_solvers_in_time_say_what_to_choose_where_they_cannot_begin(name: str, schedule: str) -> None:
    noise_schedule, spacing = PURE_NOISE[schedule]
    sampler = EVERY[name](5, spacing)

    def unused(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^\w+ can't start from pure noise, .*: choose sampler/spacing=log_snr with"):
        sampler(unused, random_latents("z"), noise_schedule, _draws())

    advised = EVERY[name](5, UniformLogSNR(sigma_max=80.0))
    assert advised(GAUSSIAN.denoise, random_latents("z"), noise_schedule, _draws()).isfinite().all()


@pytest.mark.parametrize("make", [DDIM, DDPM, Euler, Heun, DPMSolverPP2M, UniPC, EulerMaruyama, PredictorCorrector])
def test_no_steps_are_refused(make: Callable[[int], object]) -> None:
    with pytest.raises(ValueError, match=r"^num_steps must be at least 1, but is 0$"):
        make(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(5, eta=1.1), "eta must lie in [0, 1], but is 1.1"),
        (lambda: DDIM(5, eta=-0.1), "eta must lie in [0, 1], but is -0.1"),
        (lambda: DDPM(5, gamma=1.1), "gamma must lie in [0, 1], but is 1.1"),
        (lambda: DDPM(5, gamma=-0.1), "gamma must lie in [0, 1], but is -0.1"),
        (lambda: Euler(s_churn=-1.0), "s_churn must be >= 0, but is -1.0"),
        (lambda: Heun(s_noise=-1.0), "s_noise must be >= 0, but is -1.0"),
        (
            lambda: Heun(s_tmin=2.0, s_tmax=1.0),
            "s_tmin and s_tmax must be >= 0, s_tmin not above s_tmax, but are 2.0 and 1.0",
        ),
        (
            lambda: DPMSolverPP2M(1),
            "num_steps must be at least 2 for a solver of second order, but is 1: choose ddim for 1",
        ),
        (lambda: DPMSolverPP2M(5, eta=-1.0), "eta must be >= 0, but is -1.0"),
        (lambda: UniPC(2, order=3), "num_steps must be at least the order, 3, but is 2: choose a lower order"),
        (lambda: UniPC(9, order=4), "order must lie in 1 to 3, but is 4"),
        (lambda: UniPC(9, order=0), "order must lie in 1 to 3, but is 0"),
        (lambda: DDIM(5, t_end=1.0), "t_end must lie in [0, 1), but is 1.0"),
        (lambda: PredictorCorrector(snr=0.0), "snr must be > 0, but is 0.0"),
        (lambda: PredictorCorrector(num_corrections=-1), "num_corrections must be >= 0, but is -1"),
    ],
)
def test_values_out_of_range_are_refused_in_a_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        make()
