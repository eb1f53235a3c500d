import pytest
import torch

from tests.diffusion.latents import levels
from vdm.diffusion.loss_weights import MinSNR, Simple
from vdm.diffusion.parameterizations import X0, Eps, V


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_equals_the_weights_of_hang_et_al(gamma: float) -> None:
    """Hang et al. 2023, section 3.4: min(SNR, g) for x0, min(SNR, g)/SNR for eps, min(SNR, g)/(SNR + 1) for v."""
    alpha, sigma = levels(25)
    snr = (alpha / sigma) ** 2
    least = torch.minimum(snr, torch.full_like(snr, gamma))
    weight = MinSNR(gamma)

    torch.testing.assert_close(weight(alpha, sigma, X0()), least)
    torch.testing.assert_close(weight(alpha, sigma, Eps()), least / snr)
    torch.testing.assert_close(weight(alpha, sigma, V()), least / (snr + 1))


def test_simple_weighs_all_levels_alike() -> None:
    assert torch.equal(Simple()(*levels(), Eps()), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.0, -1.0])
def test_gamma_must_be_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"^gamma must be > 0, but is {gamma}$"):
        MinSNR(gamma)
