import pytest
import torch

from tests.diffusion.latents import levels, random_latents
from vdm.diffusion.parameterizations import X0, Eps, Parameterization, V, per_clip
from vdm.diffusion.schedules import log_snr

ALL = [Eps(), X0(), V()]


@pytest.mark.parametrize("parameterization", ALL, ids=str)
def test_target_stands_for_the_clean_latents(parameterization: Parameterization) -> None:
    x0, noise, (alpha, sigma) = random_latents("x0"), random_latents("noise"), levels()
    xt = per_clip(alpha) * x0 + per_clip(sigma) * noise
    target = parameterization.target(x0, noise, alpha, sigma)

    torch.testing.assert_close(parameterization.x0(target, xt, alpha, sigma), x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterization", ALL, ids=str)
def test_target_stands_for_the_clean_latents_where_variance_is_not_preserved(
    parameterization: Parameterization,
) -> None:
    x0, noise = random_latents("x0"), random_latents("noise")
    alpha, sigma = torch.linspace(0.5, 2, 5, dtype=torch.float64), torch.linspace(3, 0.1, 5, dtype=torch.float64)
    xt = per_clip(alpha) * x0 + per_clip(sigma) * noise
    target = parameterization.target(x0, noise, alpha, sigma)

    torch.testing.assert_close(parameterization.x0(target, xt, alpha, sigma), x0)


def test_v_is_the_derivative_of_the_noised_latents_along_the_circle() -> None:
    """Salimans & Ho 2022, appendix D: v = d x_phi / d phi with alpha = cos(phi), sigma = sin(phi)."""
    x0, noise = random_latents("x0"), random_latents("noise")
    phi = torch.linspace(0.1, 1.5, 5, dtype=torch.float64)

    def noised(angle: torch.Tensor) -> torch.Tensor:
        return per_clip(angle.cos()) * x0 + per_clip(angle.sin()) * noise

    step = 1e-5
    derivative = (noised(phi + step) - noised(phi - step)) / (2 * step)

    torch.testing.assert_close(V().target(x0, noise, phi.cos(), phi.sin()), derivative, rtol=1e-8, atol=1e-8)


def test_v_gives_the_noise_too() -> None:
    """Salimans & Ho 2022, appendix D: eps = sigma z + alpha v."""
    x0, noise, (alpha, sigma) = random_latents("x0"), random_latents("noise"), levels()
    v = V().target(x0, noise, alpha, sigma)
    xt = per_clip(alpha) * x0 + per_clip(sigma) * noise

    torch.testing.assert_close(per_clip(sigma) * xt + per_clip(alpha) * v, noise)


@pytest.mark.parametrize("parameterization", ALL, ids=str)
def test_error_of_the_output_per_error_of_x0_is_that_of_a_perturbation(parameterization: Parameterization) -> None:
    xt, output, (alpha, sigma) = random_latents("xt"), random_latents("output"), levels()
    error = random_latents("error")

    def x0(prediction: torch.Tensor) -> torch.Tensor:
        return parameterization.x0(prediction, xt, alpha, sigma)

    of_x0 = ((x0(output + error) - x0(output)) ** 2).flatten(1).sum(1)
    of_output = (error**2).flatten(1).sum(1)

    torch.testing.assert_close(parameterization.x0_error_scale(alpha, sigma), of_output / of_x0, rtol=1e-6, atol=0)


@pytest.mark.parametrize("parameterization", ALL, ids=str)
def test_network_sees_unscaled_latents_and_log_snr(parameterization: Parameterization) -> None:
    alpha, sigma = levels()

    assert torch.equal(parameterization.c_in(alpha, sigma), torch.ones_like(alpha))
    assert torch.equal(parameterization.c_noise(alpha, sigma), log_snr(alpha, sigma))
