from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.diffusion.latents import levels, random_latents
from vdm.diffusion.denoiser import Denoiser, bounded
from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.parameterizations import EDM, X0, Eps, Parameterization, V, Velocity
from vdm.diffusion.schedules.base import log_snr
from vdm.diffusion.shapes import over_latents
from vdm.types import Conditioning

CONDITION = Conditioning(vector=torch.ones(5, 2))


@dataclass
class Recording:
    """A network that returns what it is told to and remembers what it was given."""

    output: Tensor
    given: list[tuple[Tensor, Tensor, Conditioning, int]] = field(default_factory=list)

    def __call__(self, xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
        self.given.append((xt, c_noise, condition, num_images))
        return self.output


class Halving(X0):
    """As x0, but the network sees half of its latents."""

    def c_in(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.full_like(alpha, 0.5)


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V(), Velocity(), EDM()], ids=str)
def test_perfect_network_denoises_perfectly(parameterization: Parameterization) -> None:
    x0, noise, (alpha, sigma) = random_latents("x0"), random_latents("noise"), levels()
    xt = over_latents(alpha) * x0 + over_latents(sigma) * noise
    network = Recording(parameterization.target(x0, noise, alpha, sigma))

    torch.testing.assert_close(Denoiser(network, parameterization)(xt, alpha, sigma, CONDITION).x0, x0)


def test_network_is_given_scaled_latents_the_log_snr_and_its_conditions() -> None:
    xt, (alpha, sigma) = random_latents("xt"), levels()
    network = Recording(xt)
    Denoiser(network, Halving()).predict(xt, alpha, sigma, CONDITION, num_images=2)
    seen, c_noise, condition, num_images = network.given[0]

    assert torch.equal(seen, xt / 2)
    assert torch.equal(c_noise, log_snr(alpha, sigma))
    assert condition is CONDITION
    assert num_images == 2


def test_denoised_latents_are_bounded_only_where_asked() -> None:
    xt, (alpha, sigma) = random_latents("xt"), levels()
    output = 3 * random_latents("output")

    denoise = partial(Denoiser(Recording(output), X0()), condition=CONDITION)

    assert torch.equal(bounded(denoise, 1.0)(xt, alpha, sigma).x0, output.clamp(-1, 1))
    assert torch.equal(bounded(denoise, None)(xt, alpha, sigma).x0, output)


def test_network_with_a_second_number_for_each_latent_tells_variances() -> None:
    """Nichol & Dhariwal 2021: -1 is the posterior's log-variance, a share of 0, and 1 the forward step's."""
    xt, (alpha, sigma) = random_latents("xt"), levels()
    network = Recording(torch.cat([xt, 2 * xt], dim=1))
    denoised = Denoiser(network, X0(), learned_variance=LearnedVariance())(xt, alpha, sigma, CONDITION)

    assert torch.equal(denoised.x0, xt)
    torch.testing.assert_close(denoised.variance_share, xt + 0.5)
    assert Denoiser(Recording(xt), X0())(xt, alpha, sigma, CONDITION).variance_share is None


def test_half_precision_of_the_network_stays_inside_it() -> None:
    xt, (alpha, sigma) = random_latents("xt", dtype=torch.float32), levels(dtype=torch.float32)
    denoised = Denoiser(Recording(xt.bfloat16()), V())(xt, alpha, sigma, CONDITION)

    assert denoised.x0.dtype == torch.float32


class _Wrong(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Any:
        return self.output


@pytest.mark.parametrize(
    ("output", "found"),
    [(None, "NoneType"), ((torch.zeros(1),), "tuple"), (torch.zeros(2, 3, 4, 8, 4), "the shape (2, 3, 4, 8, 4)")],
)
def test_network_that_returns_something_else_is_named_with_what_it_must_return(output: Any, found: str) -> None:
    denoiser = Denoiser(_Wrong(output), X0())
    with pytest.raises(ValueError, match=r"^model\.network: _Wrong returned ") as refused:
        denoiser.predict(torch.zeros(2, 3, 4, 8, 8), torch.ones(2), torch.ones(2), Conditioning())
    assert str(refused.value) == (
        f"model.network: _Wrong returned {found}; its forward must return a tensor of shape (2, out_channels, 4, 8, 8)"
    )
