"""Samplers against data whose distribution, denoiser and ODE are known: what they converge to, and how fast."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from tests.diffusion.samplers.closed_forms import DEVIATION, MEAN, TWO_PEAKS, Mixture, exact_noise, moments
from tests.diffusion.samplers.every_sampler import EVERY, IN_TIME, NEEDING_SIGNAL, ODE, STOCHASTIC, Make
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.dpm_solver_pp_2m import DPMSolverPP2M
from vdm.diffusion.samplers.euler import Euler
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

ENDS = (0.01, 30.0)
"""Least and most noise of the grids on which order is measured, as ratios to the signal."""

ORDERS: dict[str, tuple[Make, int]] = {
    "ddim": (DDIM, 1),
    "euler": (Euler, 1),
    "heun": (ODE["heun"], 2),
    "dpm_solver_pp_2m": (DPMSolverPP2M, 2),
    # Zhao et al. 2023, corollary 3.2 and theorem 3.1: UniP is of order p, and the corrector adds 1.
    **{
        f"unip{'c' if corrector else ''}-{order}-{variant}": (
            lambda n, spacing, order=order, variant=variant, corrector=corrector: UniPC(
                n, spacing, order, variant, corrector
            ),
            order + corrector,
        )
        for order in (1, 2, 3)
        for variant in ("bh1", "bh2")
        for corrector in (False, True)
    },
}


def _noise() -> Tensor:
    return torch.linspace(-2.2, 2.2, 12, dtype=torch.float64).reshape(1, 1, 1, 3, 4)


@cache
def _exact_sample() -> Tensor:
    """Follow the ODE exactly, then denoise: the last step, to clean latents, is not the ODE's."""
    sigma_min, sigma_max = ENDS
    x = TWO_PEAKS.flow(sigma_max * _noise(), sigma_max, sigma_min)
    return TWO_PEAKS.denoise(x, x.new_ones(1), x.new_tensor([sigma_min])).x0


@pytest.mark.parametrize("name", ORDERS)
def test_error_of_solvers_of_the_ode_falls_at_their_published_order(name: str) -> None:
    make, order = ORDERS[name]
    errors = []
    for num_steps in (80, 160):
        sampler = make(num_steps, UniformLogSNR(*ENDS))
        sample = sampler(TWO_PEAKS.denoise, _noise(), VariancePreserving(), lambda number: _noise())
        errors.append((sample - _exact_sample()).abs().max().item())

    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


STOCHASTIC_ORDERS: dict[str, tuple[Make, int]] = {
    "ddim-1": (STOCHASTIC["ddim-1"], 1),
    "ddpm-0.3": (IN_TIME["ddpm-0.3"], 1),
    "ddpm-1": (IN_TIME["ddpm-1"], 1),
    "euler_maruyama": (NEEDING_SIGNAL["euler_maruyama"], 1),
    "reverse diffusion": (lambda n, spacing: PredictorCorrector(n, spacing, num_corrections=0), 1),
    # Of its mean and variance; its paths are of first order.
    "dpm_solver_pp_2m_sde": (STOCHASTIC["dpm_solver_pp_2m_sde"], 2),
}


@pytest.mark.parametrize("name", STOCHASTIC_ORDERS)
def test_variance_of_solvers_of_the_reverse_diffusion_errs_less_at_their_order(name: str) -> None:
    """Against the reverse diffusion of Gaussian data from N(0, s^2), exactly.

    At ratio s of noise to signal ``xt / alpha`` has variance ``d^2 + s^2``; its covariance with a later, noisier one is
    its own variance, for only independent noise lies between. Hence, going back from v to v', deviations from the mean
    shrink by v'/v and variance v' - v'^2/v is added.
    """
    make, order = STOCHASTIC_ORDERS[name]
    last, first = (DEVIATION**2 + sigma**2 for sigma in ENDS)
    variance = last - last**2 / first + (last / first) ** 2 * ENDS[1] ** 2
    variance *= (DEVIATION**2 / last) ** 2  # the last step denoises
    errors = [
        abs(moments(make(num_steps, UniformLogSNR(*ENDS)), VariancePreserving())[1] - variance)
        for num_steps in (200, 400)
    ]

    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


FAMILIES: dict[str, tuple[NoiseSchedule, Spacing]] = {
    "cosine": (Cosine(-12.0, 12.0), Trailing()),
    "vp": (VariancePreserving(), Linspace()),
    "sub-vp": (SubVariancePreserving(), Linspace()),
    "ve": (VarianceExploding(), Linspace()),
    "betas": (LinearBetas(), Linspace()),
}
CASES = [
    *((sampler, RectifiedFlow(), Trailing()) for sampler in ODE | STOCHASTIC),
    *((sampler, ZeroTerminalSNR(Cosine()), Trailing()) for sampler in ODE | STOCHASTIC),
    *((sampler, *FAMILIES[schedule]) for sampler in (*IN_TIME, "euler_maruyama") for schedule in FAMILIES),
]


@pytest.mark.parametrize(("name", "schedule", "spacing"), CASES, ids=str)
def test_samples_approach_the_distribution_of_the_data(name: str, schedule: NoiseSchedule, spacing: Spacing) -> None:
    errors = []
    for num_steps in (40, 160):
        mean, variance = moments(EVERY[name](num_steps, spacing), schedule)
        errors.append((abs(mean - MEAN), abs(variance / DEVIATION**2 - 1)))

    assert errors[1][0] < max(0.01, errors[0][0] / 3)
    assert errors[1][1] < 0.1
    assert errors[1][1] < max(0.01, errors[0][1] / 2.5)


@pytest.mark.parametrize("snr", [0.05, 0.16])
@pytest.mark.parametrize("schedule", FAMILIES)
def test_predictor_corrector_approaches_the_distribution_up_to_what_langevin_steps_add(
    schedule: str, snr: float
) -> None:
    """A Langevin step x - e x / v + sqrt(2 e) z, e = 2 r^2 v, leaves the variance v / (1 - r^2) as it is, not v."""
    noise_schedule, spacing = FAMILIES[schedule]
    mean, variance = moments(PredictorCorrector(300, spacing, snr=snr), noise_schedule)

    assert mean == pytest.approx(MEAN, abs=0.005)
    assert -0.001 < variance / DEVIATION**2 - 1 < 1 / (1 - snr**2) - 1 + 0.015


@pytest.mark.parametrize("name", ODE | STOCHASTIC)
def test_samplers_of_noise_to_signal_give_the_same_in_every_family(name: str) -> None:
    """Schedules differ in how they scale latents and in how fast time runs, and neither matters to these samplers."""
    noises = exact_noise()
    samples = [
        EVERY[name](9, Karras(0.02, 12.0))(TWO_PEAKS.denoise, noises[0], schedule, lambda number: noises[number])
        for schedule in (
            Cosine(),
            VariancePreserving(),
            SubVariancePreserving(),
            VarianceExploding(),
            RectifiedFlow(),
            LinearBetas(),
        )
    ]

    for sample in samples[1:]:
        torch.testing.assert_close(sample, samples[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("num_steps", [3, 7])
def test_a_single_possible_clip_is_hit_whatever_the_number_of_steps(name: str, num_steps: int) -> None:
    sampler = EVERY[name](num_steps, UniformLogSNR())
    mean, variance = moments(sampler, VariancePreserving(), Mixture((1.0,), (MEAN,), (0.0,)))

    assert mean == pytest.approx(MEAN, abs=1e-9)
    assert variance == pytest.approx(0, abs=1e-12)
