from itertools import product

import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import levels, random_latents
from vdm.diffusion.parameterizations import (
    EDM,
    X0,
    Eps,
    FlowTimestep,
    Parameterization,
    QuarterLogSigma,
    Timestep,
    V,
    Velocity,
    converted,
    squared_error_ratio,
)
from vdm.diffusion.schedules.base import log_snr
from vdm.diffusion.schedules.discrete import ScaledLinearBetas
from vdm.diffusion.shapes import over_latents

ALL = [Eps(), X0(), V(), Velocity(), EDM(sigma_data=0.5)]
EVER_REGULAR = [V(), Velocity(), EDM(sigma_data=0.5)]
"""Those whose output tells clean latents and noise alike at every noise level."""
PAIRS = list(product(ALL, ALL))


def _exploding(num_clips: int = 5) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma where data stay as they are, as in EDM and Stable Video Diffusion."""
    return torch.ones(num_clips, dtype=torch.float64), torch.logspace(-2.7, 2.8, num_clips, dtype=torch.float64)


def _uneven() -> tuple[Tensor, Tensor]:
    """Return alpha and sigma of no family in particular."""
    return torch.linspace(0.5, 2, 5, dtype=torch.float64), torch.linspace(3, 0.1, 5, dtype=torch.float64)


def _noised(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x0, noise = (random_latents(name, len(alpha), alpha.dtype) for name in ("x0", "noise"))
    return x0, noise, over_latents(alpha) * x0 + over_latents(sigma) * noise


@pytest.mark.parametrize("at", [levels(), _exploding(), _uneven()], ids=["preserving", "exploding", "uneven"])
@pytest.mark.parametrize("parameterization", ALL, ids=str)
def test_target_stands_for_the_clean_latents(parameterization: Parameterization, at: tuple[Tensor, Tensor]) -> None:
    x0, noise, xt = _noised(*at)
    target = parameterization.target(x0, noise, *at)

    torch.testing.assert_close(parameterization.x0(target, xt, *at), x0, rtol=1e-9, atol=1e-9)
    c_skip, c_out = parameterization.c_skip(*at), parameterization.c_out(*at)
    torch.testing.assert_close(over_latents(c_skip) * xt + over_latents(c_out) * target, x0, rtol=1e-9, atol=1e-9)


def test_edm_is_that_of_karras_et_al() -> None:
    """Karras et al. 2022, table 1: c_skip, c_out, c_in, c_noise of "ours"."""
    alpha, sigma = _exploding()
    edm, data = EDM(sigma_data=0.5), 0.5

    torch.testing.assert_close(edm.c_skip(alpha, sigma), data**2 / (sigma**2 + data**2))
    torch.testing.assert_close(edm.c_out(alpha, sigma), sigma * data / (data**2 + sigma**2).sqrt())
    torch.testing.assert_close(edm.c_in(alpha, sigma), 1 / (sigma**2 + data**2).sqrt())
    torch.testing.assert_close(edm.c_noise(alpha, sigma), sigma.log() / 4)


def test_v_of_exploding_noise_is_that_of_stable_video_diffusion() -> None:
    """Its public configuration: c_skip = 1/(s^2 + 1), c_out = -s/sqrt(s^2 + 1), c_in = 1/sqrt(s^2 + 1), log(s)/4."""
    alpha, sigma = _exploding()
    v = V(QuarterLogSigma())

    torch.testing.assert_close(v.c_skip(alpha, sigma), 1 / (sigma**2 + 1))
    torch.testing.assert_close(v.c_out(alpha, sigma), -sigma / (sigma**2 + 1).sqrt())
    torch.testing.assert_close(v.c_in(alpha, sigma), 1 / (sigma**2 + 1).sqrt())
    torch.testing.assert_close(v.c_noise(alpha, sigma), sigma.log() / 4)


def test_velocity_is_that_of_rectified_flow() -> None:
    """Liu et al. 2023: along xt = (1 - t) x0 + t noise, the derivative by time is noise - x0, so x0 = xt - t F."""
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    x0, noise, xt = _noised(1 - t, t)
    velocity = Velocity()

    torch.testing.assert_close(velocity.target(x0, noise, 1 - t, t), noise - x0)
    torch.testing.assert_close(velocity.c_skip(1 - t, t), torch.ones_like(t))
    torch.testing.assert_close(velocity.c_out(1 - t, t), -t)
    assert torch.equal(velocity.c_in(1 - t, t), torch.ones_like(t))
    torch.testing.assert_close(velocity.x0(noise - x0, xt, 1 - t, t), x0)


def test_v_is_the_derivative_of_the_noised_latents_along_the_circle() -> None:
    """Salimans & Ho 2022, appendix D: v = d x_phi / d phi with alpha = cos(phi), sigma = sin(phi)."""
    x0, noise = random_latents("x0"), random_latents("noise")
    phi = torch.linspace(0.1, 1.5, 5, dtype=torch.float64)

    def noised(angle: torch.Tensor) -> torch.Tensor:
        return over_latents(angle.cos()) * x0 + over_latents(angle.sin()) * noise

    step = 1e-5
    derivative = (noised(phi + step) - noised(phi - step)) / (2 * step)

    torch.testing.assert_close(V().target(x0, noise, phi.cos(), phi.sin()), derivative, rtol=1e-8, atol=1e-8)


def test_v_gives_the_noise_too() -> None:
    """Salimans & Ho 2022, appendix D: eps = sigma z + alpha v."""
    alpha, sigma = levels()
    x0, noise, xt = _noised(alpha, sigma)
    v = V().target(x0, noise, alpha, sigma)

    torch.testing.assert_close(over_latents(sigma) * xt + over_latents(alpha) * v, noise)
    torch.testing.assert_close(converted(v, xt, alpha, sigma, V(), Eps()), noise)


@pytest.mark.parametrize("at", [levels(), _exploding(), _uneven()], ids=["preserving", "exploding", "uneven"])
@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_any_prediction_turns_into_any_other(
    source: Parameterization, target: Parameterization, at: tuple[Tensor, Tensor]
) -> None:
    x0, noise, xt = _noised(*at)
    prediction, wanted = source.target(x0, noise, *at), target.target(x0, noise, *at)

    torch.testing.assert_close(converted(prediction, xt, *at, source, target), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("source", EVER_REGULAR, ids=str)
@pytest.mark.parametrize("target", ALL, ids=str)
def test_conversion_in_fp32_keeps_five_digits_from_pure_signal_to_pure_noise(
    source: Parameterization, target: Parameterization
) -> None:
    alpha, sigma = (
        torch.cat([level, torch.tensor(ends, dtype=torch.float64)])
        for level, ends in zip(levels(25), ([1.0, 0.0], [0.0, 1.0]), strict=True)
    )
    x0, noise, xt = _noised(alpha, sigma)
    prediction, wanted = source.target(x0, noise, alpha, sigma), target.target(x0, noise, alpha, sigma)
    single = converted(prediction.float(), xt.float(), alpha.float(), sigma.float(), source, target)

    torch.testing.assert_close(single.double(), wanted, rtol=0, atol=1e-5)


def test_noise_where_there_is_little_would_be_lost_on_the_way_over_x0() -> None:
    alpha, sigma = torch.ones(5), torch.full((5,), 1e-5)
    x0, noise, xt = _noised(alpha, sigma)
    v = V().target(x0, noise, alpha, sigma)
    over_x0 = (xt - over_latents(alpha) * V().x0(v, xt, alpha, sigma)) / over_latents(sigma)

    torch.testing.assert_close(converted(v, xt, alpha, sigma, V(), Eps()), noise, rtol=0, atol=1e-4)
    assert (over_x0 - noise).abs().max() > 1e-3


@pytest.mark.parametrize("parameterization", [X0(), V(), Velocity(), EDM()], ids=str)
def test_pure_noise_is_denoised(parameterization: Parameterization) -> None:
    alpha, sigma = torch.zeros(5), torch.ones(5)
    x0, noise, xt = _noised(alpha, sigma)

    torch.testing.assert_close(
        parameterization.x0(parameterization.target(x0, noise, alpha, sigma), xt, alpha, sigma), x0
    )


@pytest.mark.parametrize("parameterization", ALL, ids=str)
def test_pure_signal_is_left_as_it_is(parameterization: Parameterization) -> None:
    alpha, sigma = torch.ones(5), torch.zeros(5)
    x0, noise, xt = _noised(alpha, sigma)

    torch.testing.assert_close(
        parameterization.x0(parameterization.target(x0, noise, alpha, sigma), xt, alpha, sigma), x0
    )


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_ratio_of_squared_errors_is_that_of_a_perturbation(source: Parameterization, target: Parameterization) -> None:
    xt, output, (alpha, sigma) = random_latents("xt"), random_latents("output"), levels()
    error = random_latents("error")

    def turned(prediction: Tensor) -> Tensor:
        return converted(prediction, xt, alpha, sigma, source, target)

    of_target = ((turned(output + error) - turned(output)) ** 2).flatten(1).sum(1)
    of_source = (error**2).flatten(1).sum(1)

    torch.testing.assert_close(
        squared_error_ratio(source, target, alpha, sigma), of_target / of_source, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()], ids=str)
def test_network_sees_latents_of_unit_variance_and_log_snr(parameterization: Parameterization) -> None:
    alpha, sigma = levels()

    torch.testing.assert_close(parameterization.c_in(alpha, sigma), torch.ones_like(alpha))
    assert torch.equal(parameterization.c_noise(alpha, sigma), log_snr(alpha, sigma))
    alpha, sigma = _exploding()
    torch.testing.assert_close(parameterization.c_in(alpha, sigma), (1 + sigma**2).rsqrt())


@pytest.mark.parametrize("parameterization", [V(), V(QuarterLogSigma())], ids=str)
def test_what_the_network_is_told_of_pure_noise_and_of_pure_signal_is_finite(parameterization: V) -> None:
    ends = parameterization.c_noise(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))

    assert ends.isfinite().all()
    assert ends[0] == -ends[1]


def test_timesteps_of_flows_are_a_thousand_sigma_rounded_down_where_asked_for() -> None:
    t = torch.tensor([0.0, 0.25, 0.9, 0.857142, 1 - 1e-6, 1.0])
    alpha, sigma = 1 - t, t

    torch.testing.assert_close(FlowTimestep()(alpha, sigma), 1000 * t)
    torch.testing.assert_close(FlowTimestep()(3 * alpha, 3 * sigma), 1000 * t)
    assert FlowTimestep(whole=True)(alpha, sigma).tolist() == [0, 250, 900, 857, 999, 1000]


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_timesteps_are_told_exactly_in_fp32_too(zero_terminal_snr: bool) -> None:
    schedule = ScaledLinearBetas(zero_terminal_snr=zero_terminal_snr)
    t = torch.arange(1, 1001) / 1000

    assert torch.equal(Timestep(schedule)(*schedule.alpha_sigma(t)), torch.arange(1000.0))
    between = schedule.alpha_sigma(torch.tensor([0.0004, 0.5001, 0.5009]))
    assert Timestep(schedule)(*between).tolist() == [0, 499, 500]


@pytest.mark.parametrize("sigma_data", [0.0, -1.0])
def test_sigma_data_must_be_positive(sigma_data: float) -> None:
    with pytest.raises(ValueError, match=rf"^sigma_data must be > 0, but is {sigma_data}$"):
        EDM(sigma_data=sigma_data)
