import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import levels, random_latents
from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.guidance import ClassifierFree
from vdm.diffusion.parameterizations import X0, Eps
from vdm.types import Conditioning

CONDITIONAL, UNCONDITIONAL = Conditioning(vector=torch.ones(5, 1)), Conditioning(vector=torch.zeros(5, 1))
ON, OFF = random_latents("on"), random_latents("off")


def _network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
    return ON if condition is CONDITIONAL else OFF


def _guided(scale: float, clip: float | None = None) -> Tensor:
    denoise = ClassifierFree(scale)(Denoiser(_network, X0(), clip), CONDITIONAL, UNCONDITIONAL)
    return denoise(random_latents("xt"), *levels())


def test_scale_1_is_the_conditional_model_and_scale_0_the_unconditional_one() -> None:
    assert torch.equal(_guided(1.0), ON)
    torch.testing.assert_close(_guided(0.0), OFF)


@pytest.mark.parametrize("scale", [0.5, 3.0, 7.5])
def test_guidance_goes_from_the_unconditional_through_the_conditional(scale: float) -> None:
    torch.testing.assert_close(_guided(scale), OFF + scale * (ON - OFF))


def test_guiding_x0_is_guiding_the_noise() -> None:
    """Ho & Salimans 2022, eq. 6 with (1 + w) = scale: eps = (1 + w) eps_cond - w eps_uncond."""
    scale, xt, (alpha, sigma) = 4.0, random_latents("xt"), levels()
    guided = ClassifierFree(scale)(Denoiser(_network, Eps()), CONDITIONAL, UNCONDITIONAL)(xt, alpha, sigma)

    torch.testing.assert_close(guided, Eps().x0(scale * ON - (scale - 1) * OFF, xt, alpha, sigma))


def test_guided_latents_keep_the_bound() -> None:
    expected = OFF.clamp(-1, 1) + 7.5 * (ON.clamp(-1, 1) - OFF.clamp(-1, 1))

    torch.testing.assert_close(_guided(7.5, clip=1.0), expected.clamp(-1, 1))


def test_scale_1_calls_the_network_once() -> None:
    calls = []

    def network(xt: Tensor, c_noise: Tensor, condition: Conditioning, num_images: int = 0) -> Tensor:
        calls.append(condition)
        return ON

    ClassifierFree(1.0)(Denoiser(network, X0()), CONDITIONAL, UNCONDITIONAL)(random_latents("xt"), *levels())

    assert calls == [CONDITIONAL]
