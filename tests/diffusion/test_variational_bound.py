"""Terms of the bound against their definitions, worked out with SciPy and with the posterior of Ho et al. 2020."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.diffusion.latents import random_latents
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.shapes import over_latents
from vdm.diffusion.variational_bound import density_term, pixel_term, posterior_log_variance, step_term

NOW = torch.tensor([0.2, 0.4, 0.6, 0.9, 1.0], dtype=torch.float64)
THEN = torch.tensor([0.1, 0.3, 0.599, 0.5, 0.999], dtype=torch.float64)


def _posterior(
    schedule: NoiseSchedule, x0: Tensor, xt: Tensor, now: Tensor, then: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of q(x_then | x_now, x0) by Bayes' rule, and the variance of the forward step.

    The prior is N(alpha_s x0, sigma_s^2), the likelihood of x_now given x_then N(ratio x_then, forward).
    """
    (alpha, sigma), (alpha_then, sigma_then) = schedule.alpha_sigma(now), schedule.alpha_sigma(then)
    ratio = alpha / alpha_then
    forward = sigma**2 - (ratio * sigma_then) ** 2
    variance = 1 / (1 / sigma_then**2 + ratio**2 / forward)
    mean = over_latents(variance) * (over_latents(alpha_then / sigma_then**2) * x0 + over_latents(ratio / forward) * xt)
    return mean, variance, forward


@pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding(), LinearBetas(1000), RectifiedFlow()], ids=str)
def test_step_is_the_kl_divergence_from_the_posterior(schedule: NoiseSchedule) -> None:
    x0, xt, denoised = random_latents("x0"), random_latents("xt"), random_latents("denoised")
    share = torch.sigmoid(random_latents("share"))
    now, then = (NOW * 0.99, THEN * 0.99) if isinstance(schedule, RectifiedFlow) else (NOW, THEN)
    mean, variance, forward = _posterior(schedule, x0, xt, now, then)
    of_model, _, _ = _posterior(schedule, denoised, xt, now, then)
    # Nichol & Dhariwal 2021, eq. 15
    log_variance = share * over_latents(forward.log()) + (1 - share) * over_latents(variance.log())
    expected = kl_divergence(
        Normal(mean, over_latents(variance.sqrt()).expand_as(mean)), Normal(of_model, torch.exp(log_variance / 2))
    )

    torch.testing.assert_close(step_term(x0, denoised, share, schedule, now, then), expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(posterior_log_variance(schedule, now, then), variance.log(), rtol=1e-9, atol=1e-9)


def test_step_from_pure_noise_is_finite() -> None:
    x0, denoised, half = random_latents("x0"), random_latents("denoised"), torch.full_like(random_latents("x0"), 0.5)
    now, then = torch.ones(5, dtype=torch.float64), torch.full((5,), 0.9, dtype=torch.float64)
    near = step_term(x0, denoised, half, RectifiedFlow(), now - 1e-9, then)

    torch.testing.assert_close(step_term(x0, denoised, half, RectifiedFlow(), now, then), near)


def test_step_in_fp32_keeps_three_digits_where_steps_are_short() -> None:
    schedule, k = LinearBetas(1000), torch.tensor([2.0, 3.0, 10.0, 500.0, 1000.0], dtype=torch.float64)
    parts = [random_latents(name) for name in ("x0", "denoised", "share")]
    exact = step_term(*parts, schedule, k / 1000, (k - 1) / 1000)
    single = step_term(*(part.float() for part in parts), schedule, (k / 1000).float(), ((k - 1) / 1000).float())

    torch.testing.assert_close(single.double(), exact, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("num_values", [2, 16, 256])
def test_pixels_have_the_probability_of_what_rounds_to_them(num_values: int) -> None:
    """Ho et al. 2020, eq. 13, against SciPy; the probabilities of all values are 1 together."""
    values = np.linspace(-1, 1, num_values)
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    for mean, deviation in ((0.1, 0.3), (0.9, 0.01), (-1.2, 1.5)):
        cumulative = norm.cdf(edges, mean, deviation)
        x0 = torch.from_numpy(values)[:, None, None, None, None]
        log_variance = torch.full_like(x0, 2 * np.log(deviation))
        probability = torch.exp(-pixel_term(x0, torch.full_like(x0, mean), log_variance, num_values)).flatten()

        np.testing.assert_allclose(probability.numpy(), np.diff(cumulative), rtol=1e-9, atol=1e-14)
        assert probability.sum().item() == pytest.approx(1)


def test_gradient_of_pixels_far_from_the_mean_is_that_of_the_density_even_in_fp32() -> None:
    """-log p = z^2 / 2 + ... has derivative -z^2 / 2 by log-variance, up to a share 1 / |z| of it."""
    x0 = torch.tensor([-0.9, -0.5, 0.0, 0.5, 0.9])[:, None, None, None, None]
    for mean in (-30.0, -3.0, 3.0, 30.0):
        log_variance = torch.full_like(x0, -9.0).requires_grad_()
        pixel_term(x0, torch.full_like(x0, mean), log_variance, 256).sum().backward()

        expected = -(((x0 - mean) * math.exp(4.5)) ** 2) / 2
        torch.testing.assert_close(log_variance.grad, expected, rtol=0.01, atol=0)


def test_pixels_far_from_the_mean_have_the_term_of_scipy() -> None:
    x0 = torch.tensor([-0.5, 0.5], dtype=torch.float64)[:, None, None, None, None]
    edges = x0.flatten().numpy()[:, None] + np.array([-1, 1]) / 255
    term = pixel_term(x0, torch.zeros_like(x0), torch.full_like(x0, 2 * np.log(0.02)), 256).flatten().numpy()
    near, far = np.sort(np.abs(edges), axis=1).T
    expected = norm.logsf(near, scale=0.02) + np.log1p(
        -np.exp(norm.logsf(far, scale=0.02) - norm.logsf(near, scale=0.02))
    )

    np.testing.assert_allclose(term, -expected, rtol=1e-12)


def test_density_is_that_of_scipy() -> None:
    x0, mean, log_variance = random_latents("x0"), random_latents("mean"), random_latents("log variance")
    expected = -norm.logpdf(x0.numpy(), mean.numpy(), np.exp(log_variance.numpy() / 2))

    np.testing.assert_allclose(density_term(x0, mean, log_variance).numpy(), expected, rtol=1e-9)
