"""The exact likelihood against densities in closed form, by denoisers that follow from them."""

import math

import pytest
import torch
from scipy.linalg import hadamard
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal

from tests.diffusion.latents import random_latents
from tests.diffusion.samplers.closed_forms import DEVIATION, GAUSSIAN, MEAN
from vdm.diffusion.denoiser import Denoised
from vdm.diffusion.likelihood.exact import ExactLikelihood, log_density, rademacher
from vdm.diffusion.ode import DormandPrince
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.sub_variance_preserving import SubVariancePreserving
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.shapes import over_latents

SOLVER = DormandPrince(1e-6, 1e-6)
TOLERANCE = 1e-3 * math.log(2)
"""A thousandth of a bit a dimension, in nats."""


SHAPE = (1, 2, 2, 2)
CENTERS = torch.stack([random_latents(f"center {i}", 1)[0, :1, :2, :2, :2] for i in range(3)])
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
WIDTH = 0.4


def mixture_log_density(x0: Tensor) -> Tensor:
    """Return the density of a mixture of three Gaussians in 8 dimensions, which therefore depend on each other."""
    logits = Normal(CENTERS, WIDTH).log_prob(x0[:, None]).flatten(2).sum(2) + SHARES.log()
    return logits.logsumexp(1)


def mixture_denoiser(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
    """Return E[x0 | xt]: that of each Gaussian, weighted by how probable it is given xt."""
    a, s = over_latents(alpha)[:, None], over_latents(sigma)[:, None]
    total = torch.hypot(a * WIDTH, s)
    logits = Normal(a * CENTERS, total).log_prob(xt[:, None]).flatten(2).sum(2) + SHARES.log()
    weights = logits.softmax(1)[:, :, None, None, None, None]
    means = CENTERS + a * WIDTH**2 / total**2 * (xt[:, None] - a * CENTERS)
    return Denoised((weights * means).sum(1))


def mixture_samples(num_clips: int) -> Tensor:
    centers = CENTERS[torch.arange(num_clips) % len(CENTERS)]
    return centers + WIDTH * torch.randn(centers.shape, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(),
        VariancePreserving(beta_max=40.0),  # with 20, noise at t = 1 still shows the data's mean, by 0.002 bits
        SubVariancePreserving(beta_max=40.0),
        VarianceExploding(1e-3, 700.0),
        RectifiedFlow(),
    ],
    ids=str,
)
def test_likelihood_of_gaussian_data_is_the_density(schedule: NoiseSchedule) -> None:
    """The Jacobian is a multiple of the identity, whose trace any vector of ones and minus ones gives."""
    x0 = MEAN + 1.5 * DEVIATION * random_latents("x0")
    probes = rademacher(random_latents("probe"))[None]
    expected = Normal(MEAN, DEVIATION).log_prob(x0).flatten(1).mean(1)
    found = log_density(GAUSSIAN.denoise, x0, schedule, probes, SOLVER, 1e-3) / x0[0].numel()

    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding(1e-3, 700.0), RectifiedFlow()], ids=str)
def test_likelihood_of_a_mixture_is_its_density_by_the_exact_trace(schedule: NoiseSchedule) -> None:
    """The rows of a Hadamard matrix are orthogonal: the mean of their 8 estimates is the trace itself."""
    x0 = mixture_samples(6)
    rows = torch.from_numpy(hadamard(8)).double().view(8, 1, *SHAPE)
    found = log_density(mixture_denoiser, x0, schedule, rows.expand(8, 6, *SHAPE), SOLVER, 1e-3)

    torch.testing.assert_close(found / 8, mixture_log_density(x0) / 8, rtol=0, atol=TOLERANCE)


def test_likelihood_by_random_probes_is_right_in_the_mean() -> None:
    x0 = mixture_samples(1).expand(4000, *SHAPE)
    noise = torch.randn(1, 4000, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = log_density(mixture_denoiser, x0, Cosine(), noise.sign(), DormandPrince(1e-4, 1e-4), 1e-3) / 8
    standard_error = found.std() / math.sqrt(len(found))

    assert standard_error < TOLERANCE
    assert abs(found.mean() - mixture_log_density(x0[:1]) / 8) < 3 * standard_error + TOLERANCE


def test_more_probes_make_the_estimate_vary_less() -> None:
    x0 = mixture_samples(1).expand(300, *SHAPE)
    noise = torch.randn(4, 300, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    solver = DormandPrince(1e-3, 1e-3)
    one, four = (
        log_density(mixture_denoiser, x0, Cosine(), noise[:number].sign(), solver, 1e-3).std() for number in (1, 4)
    )

    assert one / four == pytest.approx(2, rel=0.2)


def test_bits_are_of_pixels_spread_evenly_over_the_width_of_a_value() -> None:
    noises = {number: random_latents(f"noise {number}") for number in range(2)}
    x0 = (random_latents("x0").clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    spread = x0 + (torch.from_numpy(norm.cdf(noises[0].numpy())) - 0.5) / 127.5
    density = Normal(MEAN, DEVIATION).log_prob(spread).flatten(1).mean(1)
    found = ExactLikelihood(SOLVER)(GAUSSIAN.denoise, x0, Cosine(), lambda number: noises[number])

    torch.testing.assert_close(found, -density / math.log(2) + math.log2(127.5), rtol=0, atol=1e-3)


def test_pixels_of_which_all_values_are_as_probable_take_8_bits() -> None:
    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        """Return the mean of a normal distribution cut off at the ends of the outermost values' intervals."""
        mean, deviation = xt / over_latents(alpha), over_latents(sigma / alpha)
        lower, upper = (-256 / 255 - mean) / deviation, (256 / 255 - mean) / deviation
        normal = Normal(torch.zeros_like(mean), 1.0)
        mass = (normal.cdf(upper) - normal.cdf(lower)).clamp(min=1e-300)
        return Denoised(mean + deviation * (normal.log_prob(lower).exp() - normal.log_prob(upper).exp()) / mass)

    x0 = torch.arange(20, 236, 9, dtype=torch.float64).view(-1, 1, 1, 1, 1) / 127.5 - 1
    found = ExactLikelihood(SOLVER)(denoise, x0, Cosine(-14.0, 14.0), lambda number: torch.full_like(x0, 0.3))

    torch.testing.assert_close(found, torch.full_like(found, 8.0), rtol=0, atol=1e-3)


def test_each_step_is_reported() -> None:
    reports: list[None] = []
    likelihood = ExactLikelihood()
    x0 = random_latents("x0")
    likelihood(GAUSSIAN.denoise, x0, Cosine(), lambda number: x0, lambda: reports.append(None))

    assert likelihood.num_steps is None
    assert len(reports) > 3


def test_no_probes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^num_probes must be at least 1, but is 0$"):
        ExactLikelihood(num_probes=0)
