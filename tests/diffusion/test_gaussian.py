import pytest
import torch

from tests.diffusion.latents import random_latents
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.loss_weights import LossWeight, MinSNR, Simple
from vdm.diffusion.noise_levels import Uniform
from vdm.diffusion.parameterizations import X0, Eps, Parameterization, V, per_clip
from vdm.diffusion.schedules import Cosine

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


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()], ids=str)
@pytest.mark.parametrize("loss_weight", [Simple(), MinSNR()], ids=str)
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


def test_min_snr_loss_is_the_same_whatever_the_network_predicts() -> None:
    """With the same error of x0, since the weight is one of x0 (Hang et al. 2023)."""
    x0, noise = random_latents("x0", dtype=torch.float32), random_latents("noise", dtype=torch.float32)
    guess = random_latents("guess", dtype=torch.float32)
    losses = []
    for parameterization in (Eps(), X0(), V()):
        diffusion = _diffusion(parameterization, MinSNR())
        noised = diffusion.add_noise(x0, noise, TIMES)
        alpha, sigma = per_clip(noised.alpha), per_clip(noised.sigma)
        noise_of_guess = (noised.xt - alpha * guess) / sigma
        losses.append(
            diffusion.loss(parameterization.target(guess, noise_of_guess, noised.alpha, noised.sigma), noised)
        )

    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=0)
    torch.testing.assert_close(losses[2], losses[1], rtol=1e-3, atol=0)


def test_loss_of_a_prediction_in_half_precision_is_computed_in_fp32() -> None:
    diffusion = _diffusion(X0())
    x0 = random_latents("x0", dtype=torch.float32)
    noised = diffusion.add_noise(x0, torch.zeros_like(x0), TIMES)
    loss = diffusion.loss(x0.bfloat16(), noised)

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ((x0.bfloat16().float() - x0) ** 2).flatten(1).mean(1))
