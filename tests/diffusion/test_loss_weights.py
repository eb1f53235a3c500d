import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import levels
from vdm.diffusion.loss_weights import VLB, ErrorOf, LossWeight, MinSNR, SigmoidWeight, Simple
from vdm.diffusion.parameterizations import EDM, X0, Eps, Parameterization, V, Velocity
from vdm.diffusion.schedules.base import NoiseSchedule, log_snr
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.log_snr_linear import LogSNRLinear
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.types import NoisedLatents


def _noised(t: Tensor, alpha: Tensor, sigma: Tensor) -> NoisedLatents:
    nothing = torch.zeros(len(t), 1, 1, 1, 1, dtype=t.dtype)
    return NoisedLatents(nothing, nothing, nothing, t, alpha, sigma)


def _at_levels() -> NoisedLatents:
    alpha, sigma = levels(25)
    return _noised(Cosine().time(log_snr(alpha, sigma)), alpha, sigma)


def _at_times(schedule: NoiseSchedule, t: Tensor) -> NoisedLatents:
    return _noised(t, *schedule.alpha_sigma(t))


def _snr(noised: NoisedLatents) -> Tensor:
    return (noised.alpha / noised.sigma) ** 2


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_equals_the_weights_of_hang_et_al(gamma: float) -> None:
    """Hang et al. 2023, section 3.4: min(SNR, g) for x0, min(SNR, g)/SNR for eps, min(SNR, g)/(SNR + 1) for v."""
    noised = _at_levels()
    snr = _snr(noised)
    least = torch.minimum(snr, torch.full_like(snr, gamma))
    weight = MinSNR(gamma)

    torch.testing.assert_close(weight(noised, X0(), Cosine()), least)
    torch.testing.assert_close(weight(noised, Eps(), Cosine()), least / snr)
    torch.testing.assert_close(weight(noised, V(), Cosine()), least / (snr + 1))


def test_simple_weighs_all_levels_alike() -> None:
    assert torch.equal(Simple()(_at_levels(), Eps(), Cosine()), torch.ones(25, dtype=torch.float64))


def test_error_of_noise_and_of_v_are_errors_of_x0_by_snr_and_snr_plus_1() -> None:
    """Salimans & Ho 2022, section 4: |eps error|^2 = SNR |x0 error|^2 and |v error|^2 = (SNR + 1) |x0 error|^2."""
    noised = _at_levels()
    snr = _snr(noised)

    torch.testing.assert_close(ErrorOf(Eps())(noised, X0(), Cosine()), snr)
    torch.testing.assert_close(ErrorOf(V())(noised, X0(), Cosine()), snr + 1)
    torch.testing.assert_close(ErrorOf(X0())(noised, Eps(), Cosine()), 1 / snr)
    torch.testing.assert_close(ErrorOf(X0())(noised, V(), Cosine()), 1 / (snr + 1))
    torch.testing.assert_close(ErrorOf(Eps())(noised, V(), Cosine()), noised.alpha**2)


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V(), Velocity(), EDM()], ids=str)
def test_error_of_what_the_network_predicts_is_the_simple_loss(parameterization: Parameterization) -> None:
    weight = ErrorOf(parameterization)(_at_levels(), parameterization, Cosine())

    torch.testing.assert_close(weight, torch.ones_like(weight))


def test_error_of_edm_is_the_weight_of_karras_et_al() -> None:
    """Karras et al. 2022, table 1: lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, of x0's error."""
    schedule = VarianceExploding(0.002, 80)
    noised = _at_times(schedule, torch.linspace(0, 1, 25, dtype=torch.float64))
    sigma, data = noised.sigma, 0.5

    torch.testing.assert_close(
        ErrorOf(EDM(sigma_data=data))(noised, X0(), schedule), (sigma**2 + data**2) / (sigma * data) ** 2
    )


def test_error_of_v_is_the_weight_of_stable_video_diffusion() -> None:
    """Its public configuration: (1 + sigma^2) / sigma^2 of the squared error of x0."""
    schedule = VarianceExploding(0.002, 700)
    noised = _at_times(schedule, torch.linspace(0, 1, 25, dtype=torch.float64))

    torch.testing.assert_close(ErrorOf(V())(noised, X0(), schedule), (1 + noised.sigma**2) / noised.sigma**2)


def test_error_of_the_velocity_is_that_of_x0_by_time_squared_up_to_the_bound() -> None:
    """Li & He 2025: v = (x0 - xt) / (noise level), with the divisor at least 0.05."""
    t = torch.linspace(0, 1, 26, dtype=torch.float64)
    weight = ErrorOf(Velocity(), max_weight=400.0)(_at_times(RectifiedFlow(), t), X0(), RectifiedFlow())

    torch.testing.assert_close(weight, t.clamp(min=0.05) ** -2)


def test_vlb_is_half_the_loss_of_snr_by_time() -> None:
    """Kingma et al. 2021, eq. 17: -1/2 dSNR/dt of the squared error of x0; here SNR = ((1 - t) / t)^2."""
    t = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    noised = _at_times(RectifiedFlow(), t)

    torch.testing.assert_close(VLB()(noised, X0(), RectifiedFlow()), (1 - t) / t**3)
    torch.testing.assert_close(VLB()(noised, Velocity(), RectifiedFlow()), (1 - t) / t)


def test_vlb_of_a_linear_log_snr_weighs_the_noise_alike_everywhere() -> None:
    """Kingma et al. 2021, eq. 18: 1/2 dgamma/dt of the squared error of the noise, gamma = -log-SNR."""
    schedule = LogSNRLinear(-5, 13)
    weight = VLB()(_at_times(schedule, torch.linspace(0, 1, 25, dtype=torch.float64)), Eps(), schedule)

    torch.testing.assert_close(weight, torch.full_like(weight, 9.0))


def test_vlb_is_the_limit_of_many_discrete_steps() -> None:
    """Kingma et al. 2021, eq. 13: T/2 (SNR(s) - SNR(t)) of the squared error of x0, from t to s = t - 1/T."""
    schedule, num_steps = VariancePreserving(), 10**6
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    before, after = (_snr(_at_times(schedule, time)) for time in (t - 1 / num_steps, t))

    torch.testing.assert_close(
        VLB()(_at_times(schedule, t - 0.5 / num_steps), X0(), schedule),
        num_steps / 2 * (before - after),
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize("bias", [-3.0, 0.0, 1.0])
def test_sigmoid_is_the_vlb_with_less_detail(bias: float) -> None:
    """Hoogeboom et al. 2024, appendix: -1/2 dlog-SNR/dt exp(b) sigmoid(log-SNR - b) of the squared error of x0."""
    schedule = LogSNRLinear(-5, 13)
    noised = _at_times(schedule, torch.linspace(0, 1, 25, dtype=torch.float64))
    values = schedule.log_snr(noised.t)

    torch.testing.assert_close(
        SigmoidWeight(bias)(noised, X0(), schedule), 9 * torch.exp(torch.tensor(bias)) * torch.sigmoid(values - bias)
    )
    torch.testing.assert_close(SigmoidWeight(bias)(noised, Eps(), schedule), 9 * torch.sigmoid(bias - values))


@pytest.mark.parametrize("weight", [VLB(), SigmoidWeight(-1.0)], ids=str)
def test_expected_bound_depends_on_the_ends_of_the_schedule_alone(weight: LossWeight) -> None:
    """Kingma et al. 2021, section 5.1, for an error of x0 that grows with noise as 1 / (1 + SNR)."""
    num_times = 20_000
    t = (torch.arange(num_times, dtype=torch.float64) + 0.5) / num_times
    expected = []
    for schedule in (
        LogSNRLinear(-6, 8),
        Cosine(-6, 8),
        VarianceExploding(2.718281828459045**-4, 2.718281828459045**3),
    ):
        noised = _at_times(schedule, t)
        expected.append((weight(noised, X0(), schedule) / (1 + _snr(noised))).mean().item())

    assert expected[1] == pytest.approx(expected[0], rel=1e-5)
    assert expected[2] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize("weight", [Simple(), MinSNR(), ErrorOf(X0()), ErrorOf(V()), ErrorOf(Eps())], ids=str)
@pytest.mark.parametrize("parameterization", [V(), Velocity(), EDM()], ids=str)
def test_weights_are_finite_from_pure_signal_to_pure_noise(
    weight: LossWeight, parameterization: Parameterization
) -> None:
    noised = _at_times(RectifiedFlow(), torch.tensor([0.0, 2**-24, 0.5, 1 - 2**-24, 1.0]))

    assert weight(noised, parameterization, RectifiedFlow()).isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, -1.0])
def test_gamma_must_be_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"^gamma must be > 0, but is {gamma}$"):
        MinSNR(gamma)


def test_bound_of_the_weight_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^max_weight must be > 0, or null for no bound, but is 0\.0$"):
        ErrorOf(V(), max_weight=0.0)
