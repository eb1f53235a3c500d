import pytest
import torch

from tests.diffusion.latents import random_latents
from vdm.diffusion.distances import PseudoHuber, SquaredError


def test_squared_error_is_the_mean_over_each_clip() -> None:
    prediction, target = random_latents("prediction"), random_latents("target")

    expected = torch.stack([(difference**2).mean() for difference in prediction - target])

    torch.testing.assert_close(SquaredError()(prediction, target), expected)


def test_pseudo_huber_is_that_of_song_and_dhariwal_by_root_dimension() -> None:
    """Song & Dhariwal 2023, section 3.3: sqrt(|x - y|^2 + c^2) - c with c = 0.00054 sqrt(d)."""
    prediction, target = random_latents("prediction"), random_latents("target")
    dimensions = target[0].numel()
    c = 0.00054 * dimensions**0.5
    expected = ((prediction - target).flatten(1).norm(dim=1) ** 2 + c**2).sqrt() - c

    torch.testing.assert_close(PseudoHuber()(prediction, target), expected / dimensions**0.5)


def test_pseudo_huber_of_small_errors_is_their_square_by_2c_even_in_fp32() -> None:
    target = random_latents("target", dtype=torch.float32)
    prediction = target + 1e-4 * random_latents("error", dtype=torch.float32)

    torch.testing.assert_close(
        PseudoHuber(c=10.0)(prediction, target), SquaredError()(prediction, target) / 20, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("distance", [SquaredError(), PseudoHuber()], ids=str)
def test_gradient_of_a_perfect_prediction_is_zero(distance: SquaredError | PseudoHuber) -> None:
    prediction = random_latents("x0").requires_grad_()
    distance(prediction, prediction.detach().clone()).sum().backward()

    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_c_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^c must be > 0, but is 0\.0$"):
        PseudoHuber(c=0.0)
