import pytest
import torch

from tests.diffusion.latents import random_latents
from vdm.diffusion.distances import PseudoHuber
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.loss_weights import VLB, ErrorOf, LossWeight, MinSNR, SigmoidWeight, Simple
from vdm.diffusion.noise_levels import DiscreteUniform, LogitNormal, NoiseLevels, Uniform
from vdm.diffusion.parameterizations import EDM, X0, Eps, Parameterization, V, Velocity
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import ScaledLinearBetas, SquaredCosineBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.shapes import over_latents

TIMES = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])


def _diffusion(parameterization: Parameterization, loss_weight: LossWeight | None = None) -> GaussianDiffusion:
    return GaussianDiffusion(Cosine(), parameterization, Uniform(), loss_weight or Simple())


def test_noised_latents_are_alpha_data_and_sigma_noise() -> None:
    x0, noise = random_latents("x0", dtype=torch.float32), random_latents("noise", dtype=torch.float32)
    noised = _diffusion(Eps()).add_noise(x0, noise, TIMES)

    for clip, t in enumerate(TIMES):
        alpha, sigma = torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)
        torch.testing.assert_close(noised.xt[clip], alpha * x0[clip] + sigma * noise[clip], rtol=0, atol=2e-4)
    assert noised.x0 is x0
    assert noised.noise is noise


ALL = [Eps(), X0(), V(), Velocity(), EDM()]


@pytest.mark.parametrize("parameterization", ALL, ids=str)
@pytest.mark.parametrize("loss_weight", [Simple(), MinSNR(), VLB()], ids=str)
def test_perfect_prediction_has_no_loss(parameterization: Parameterization, loss_weight: LossWeight) -> None:
    diffusion = _diffusion(parameterization, loss_weight)
    noised = diffusion.add_noise(
        random_latents("x0", dtype=torch.float32), random_latents("noise", dtype=torch.float32), TIMES
    )
    target = parameterization.target(noised.x0, noised.noise, noised.alpha, noised.sigma)

    assert torch.equal(diffusion.loss(target, noised), torch.zeros(5))


def test_loss_is_the_weighted_mean_square_of_each_clip() -> None:
    diffusion = _diffusion(V(), MinSNR(5.0))
    x0, noise = random_latents("x0", dtype=torch.float32), random_latents("noise", dtype=torch.float32)
    prediction = random_latents("prediction", dtype=torch.float32)
    loss = diffusion.loss(prediction, diffusion.add_noise(x0, noise, TIMES))

    for clip, t in enumerate(TIMES):
        alpha, sigma = torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)
        snr = (alpha / sigma) ** 2
        error = ((prediction[clip] - (alpha * noise[clip] - sigma * x0[clip])) ** 2).mean()
        torch.testing.assert_close(loss[clip], snr.clamp(max=5.0) / (snr + 1) * error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("loss_weight", [MinSNR(), VLB(), SigmoidWeight(), *map(ErrorOf, ALL)], ids=str)
def test_loss_is_the_same_whatever_the_network_predicts(loss_weight: LossWeight) -> None:
    """With the same guess of x0, for weights that papers state of one thing, be it x0, noise or v."""
    x0, noise = random_latents("x0", dtype=torch.float32), random_latents("noise", dtype=torch.float32)
    guess = random_latents("guess", dtype=torch.float32)
    losses = []
    for parameterization in ALL:
        diffusion = _diffusion(parameterization, loss_weight)
        noised = diffusion.add_noise(x0, noise, TIMES)
        alpha, sigma = over_latents(noised.alpha), over_latents(noised.sigma)
        noise_of_guess = (noised.xt - alpha * guess) / sigma
        losses.append(
            diffusion.loss(parameterization.target(guess, noise_of_guess, noised.alpha, noised.sigma), noised)
        )

    for loss in losses:
        torch.testing.assert_close(loss, losses[0], rtol=1e-4, atol=0)


def test_distance_is_that_of_the_diffusion() -> None:
    diffusion = GaussianDiffusion(Cosine(), V(), Uniform(), MinSNR(), distance=PseudoHuber(0.1))
    x0, noise = random_latents("x0", dtype=torch.float32), random_latents("noise", dtype=torch.float32)
    prediction = random_latents("prediction", dtype=torch.float32)
    noised = diffusion.add_noise(x0, noise, TIMES)
    distance = PseudoHuber(0.1)(prediction, V().target(x0, noise, noised.alpha, noised.sigma))

    torch.testing.assert_close(diffusion.loss(prediction, noised), distance * MinSNR()(noised, V(), Cosine()))


def test_loss_of_a_prediction_in_half_precision_is_computed_in_fp32() -> None:
    diffusion = _diffusion(X0())
    x0 = random_latents("x0", dtype=torch.float32)
    noised = diffusion.add_noise(x0, torch.zeros_like(x0), TIMES)
    loss = diffusion.loss(x0.bfloat16(), noised)

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ((x0.bfloat16().float() - x0) ** 2).flatten(1).mean(1))


def test_network_outputs_twice_the_channels_for_learned_variances() -> None:
    assert _diffusion(V()).out_channels(4) == 4
    learned = GaussianDiffusion(Cosine(), V(), Uniform(), Simple(), learned_variance=LearnedVariance())
    assert learned.out_channels(4) == 8


@pytest.mark.parametrize(
    "schedule", [RectifiedFlow(), Shifted(RectifiedFlow(), -2.0), ScaledLinearBetas(zero_terminal_snr=True)], ids=str
)
def test_noise_can_not_be_predicted_where_there_is_no_signal(schedule: NoiseSchedule) -> None:
    message = r"^parameterization=Eps\(.*\): can't recover clean latents at t=1, .*; choose V, X0, Velocity or EDM$"
    with pytest.raises(ValueError, match=message):
        GaussianDiffusion(schedule, Eps(), Uniform(), Simple())
    for parameterization in (V(), X0(), Velocity(), EDM()):
        GaussianDiffusion(schedule, parameterization, Uniform(), Simple())


@pytest.mark.parametrize("schedule", [Cosine(), SquaredCosineBetas(4000), VarianceExploding(0.002, 700)], ids=str)
def test_noise_can_be_predicted_where_there_is_little_signal(schedule: NoiseSchedule) -> None:
    GaussianDiffusion(schedule, Eps(), Uniform(), Simple())


@pytest.mark.parametrize(
    ("schedule", "parameterization", "noise_levels", "loss_weight"),
    [
        (RectifiedFlow(), Velocity(), Uniform(), VLB()),
        (RectifiedFlow(), X0(), Uniform(), ErrorOf(Velocity())),
        (ScaledLinearBetas(zero_terminal_snr=True), V(), DiscreteUniform(), VLB()),
    ],
    ids=str,
)
def test_infinite_weights_are_refused(
    schedule: NoiseSchedule, parameterization: Parameterization, noise_levels: NoiseLevels, loss_weight: LossWeight
) -> None:
    with pytest.raises(ValueError, match=r"^loss_weight=.*: is (inf|nan) at t=[01], which noise_levels=.* may draw"):
        GaussianDiffusion(schedule, parameterization, noise_levels, loss_weight)


def test_weights_that_are_infinite_only_where_nothing_is_drawn_will_do() -> None:
    GaussianDiffusion(RectifiedFlow(), Velocity(), Uniform(t_min=1e-5), VLB())
    GaussianDiffusion(RectifiedFlow(), X0(), LogitNormal(), SigmoidWeight())
    GaussianDiffusion(RectifiedFlow(), X0(), Uniform(), ErrorOf(Velocity(), max_weight=400.0))


def test_bound_of_denoised_latents_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^clip_denoised must be > 0, or null for no bound, but is 0\.0$"):
        GaussianDiffusion(Cosine(), V(), Uniform(), Simple(), clip_denoised=0.0)
