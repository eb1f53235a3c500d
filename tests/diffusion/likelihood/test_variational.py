"""The variational bound against its terms in closed form, and against the probability that it bounds."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.diffusion.samplers.closed_forms import DEVIATION, GAUSSIAN, MEAN
from vdm.diffusion.denoiser import Denoised
from vdm.diffusion.likelihood.variational import VariationalBound, prior_term
from vdm.diffusion.samplers.base import GridPoint
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.rectified_flow import RectifiedFlow
from vdm.diffusion.schedules.shifted import Shifted
from vdm.diffusion.schedules.variance_exploding import VarianceExploding
from vdm.diffusion.shapes import over_latents
from vdm.diffusion.variational_bound import pixel_term, step_term

SIGNS = torch.tensor(list(product((-1.0, 1.0), repeat=2)), dtype=torch.float64)
"""Squares of what is linear in two standard normal numbers have the same mean over these four pairs."""
SCHEDULES = [Cosine(-10.0, 10.0), VarianceExploding(0.01, 50.0), RectifiedFlow()]


def numbers(values: Tensor) -> Tensor:
    """Return clips of one number each."""
    return values.view(-1, 1, 1, 1, 1)


def point(schedule: NoiseSchedule, t: float) -> GridPoint:
    alpha, sigma = schedule.alpha_sigma(torch.tensor([t], dtype=torch.float64))
    return GridPoint(alpha=alpha.item(), sigma=sigma.item(), t=t)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("t", "s"), [(0.9, 0.8), (0.4, 0.1)])
def test_a_step_s_term_for_gaussian_data_is_that_of_the_formula(
    schedule: NoiseSchedule, gamma: float, t: float, s: float
) -> None:
    """KL of two Gaussians whose means differ by w (x0 - E[x0 | xt]), squared on average w^2 Var[x0 | xt]."""
    now, then = point(schedule, t), point(schedule, s)
    x0, noise = numbers(MEAN + DEVIATION * SIGNS[:, 0]), numbers(SIGNS[:, 1])
    levels = (torch.full((4,), level, dtype=torch.float64) for level in (now.alpha, now.sigma))
    denoised = GAUSSIAN.denoise(now.alpha * x0 + now.sigma * noise, *levels).x0
    times = (torch.full((4,), time, dtype=torch.float64) for time in (t, s))
    term = step_term(x0, denoised, torch.full_like(x0, gamma), schedule, *times)

    ratio = now.alpha / then.alpha
    forward = now.sigma**2 - ratio**2 * then.sigma**2
    posterior = 1 / (1 / then.sigma**2 + ratio**2 / forward)
    weight = posterior * then.alpha / then.sigma**2
    model = forward**gamma * posterior ** (1 - gamma)
    uncertainty = (DEVIATION * now.sigma) ** 2 / ((DEVIATION * now.alpha) ** 2 + now.sigma**2)
    expected = ((posterior + weight**2 * uncertainty) / model - 1 + math.log(model / posterior)) / 2
    assert term.mean().item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES[:2], ids=str)
def test_the_prior_s_term_for_gaussian_data_is_that_of_the_formula(schedule: NoiseSchedule) -> None:
    """KL of N(alpha x0, sigma^2) from N(0, sigma^2)."""
    first = point(schedule, 1.0)
    expected = (first.alpha / first.sigma) ** 2 * (MEAN**2 + DEVIATION**2) / 2

    assert prior_term(numbers(MEAN + DEVIATION * SIGNS[:, 0]), first).mean().item() == pytest.approx(expected)


PIXELS = torch.tensor([20.0, 130.0, 160.0], dtype=torch.float64) / 127.5 - 1
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
NODES = torch.linspace(-7, 7, 141, dtype=torch.float64)
WEIGHTS = torch.exp(-(NODES**2) / 2) / math.sqrt(2 * math.pi) * 0.1
"""Sums over these stand for expectations over standard normal noise: the trapezoidal rule."""


def denoise_pixels(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
    """Return E[x0 | xt] for data of one pixel, which takes three values."""
    distances = (xt - over_latents(alpha) * PIXELS) / over_latents(sigma)
    weights = (SHARES.log() - distances**2 / 2).softmax(-1)
    return Denoised((weights * PIXELS).sum(-1, keepdim=True))


def bits(bound: VariationalBound, schedule: NoiseSchedule) -> Tensor:
    """Return the bound for each of the three values."""
    x0 = numbers(PIXELS.repeat_interleave(len(NODES)))
    noise = numbers(NODES.repeat(len(PIXELS)))
    return bound(denoise_pixels, x0, schedule, lambda number: noise).view(3, -1) @ WEIGHTS


@pytest.mark.parametrize(
    ("schedule", "gamma"),
    [
        (Shifted(Cosine(), 5.0), 0.0),
        (Shifted(RectifiedFlow(), 5.0), 0.0),
        (VarianceExploding(1e-3, 50.0), 0.0),
        (VarianceExploding(1e-3, 50.0), 1.0),
    ],
    ids=str,
)
def test_bound_goes_to_the_bits_of_each_value_as_steps_grow(schedule: NoiseSchedule, gamma: float) -> None:
    few, many = (bits(VariationalBound(num_steps, gamma), schedule) + SHARES.log2() for num_steps in (200, 800))

    assert few @ SHARES > many @ SHARES > 0  # in the mean over the data, a bound of the entropy
    # All of the gap is inverse to the number of steps.
    torch.testing.assert_close(few / many, torch.full_like(few, 4.0), rtol=0.05, atol=0)


def test_learned_variance_takes_the_place_of_gamma() -> None:
    x0, noise = numbers(PIXELS), numbers(NODES[[50, 80, 110]])

    def learned(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(denoise_pixels(xt, alpha, sigma).x0, torch.full_like(xt, 0.3))

    found, expected = (
        VariationalBound(20, gamma)(denoise, x0, Cosine(), lambda number: noise)
        for denoise, gamma in ((learned, 1.0), (denoise_pixels, 0.3))
    )
    torch.testing.assert_close(found, expected)


def test_one_step_is_the_prior_and_the_decoder() -> None:
    schedule = Cosine(-3.0, 10.0)
    x0, noise = numbers(PIXELS), numbers(NODES[[50, 80, 110]])
    first = point(schedule, 1.0)
    levels = (torch.full((3,), level, dtype=torch.float64) for level in (first.alpha, first.sigma))
    mean = denoise_pixels(first.alpha * x0 + first.sigma * noise, *levels).x0
    variance = torch.full_like(x0, first.sigma**2)
    nats = prior_term(x0, first) + pixel_term(x0, mean, variance.log(), 256).flatten()
    found = VariationalBound(1)(denoise_pixels, x0, schedule, lambda number: noise)

    torch.testing.assert_close(found, nats / math.log(2))


def test_each_term_has_its_own_noise_and_is_reported() -> None:
    drawn: list[int] = []
    x0 = numbers(PIXELS)

    def draw(number: int) -> Tensor:
        drawn.append(number)
        return torch.zeros_like(x0)

    reports: list[None] = []
    VariationalBound(5)(denoise_pixels, x0, Cosine(), draw, lambda: reports.append(None))
    assert drawn == [1, 2, 3, 4, 5]
    assert len(reports) == 5


def test_mistaken_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"^num_steps must be at least 1, but is 0$"):
        VariationalBound(0)
    with pytest.raises(ValueError, match=r"^gamma must lie in \[0, 1\], but is 1\.5$"):
        VariationalBound(5, gamma=1.5)
