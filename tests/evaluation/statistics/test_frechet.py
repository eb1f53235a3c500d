import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from vdm.evaluation.frechet import frechet_distance


def features(num_clips: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    return torch.randn(num_clips, width, generator=generator) @ mixing + torch.randn(width, generator=generator)


@pytest.mark.parametrize("num_clips", [5, 200])
def test_it_is_that_of_the_formula_with_scipy_s_matrix_root(num_clips: int) -> None:
    one, other = features(200, 8, 1), features(num_clips, 8, 2)
    covariances = [np.cov(x.double().numpy(), rowvar=False) for x in (one, other)]
    shift = (one.double().mean(0) - other.double().mean(0)).square().sum().item()
    expected = shift + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real)

    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)


def test_it_is_0_for_a_set_and_itself_even_where_covariances_have_no_full_rank() -> None:
    few = features(4, 32, 3)

    assert frechet_distance(few, few.flip(0)) == pytest.approx(0, abs=1e-9)


def test_of_one_feature_it_is_the_distance_of_means_and_of_deviations() -> None:
    one = torch.tensor([[1.0], [3.0]])  # mean 2, deviation sqrt(2)
    other = torch.tensor([[4.0], [12.0]])  # mean 8, deviation 4 sqrt(2)

    assert frechet_distance(one, other) == pytest.approx(6**2 + (3 * 2**0.5) ** 2)


def test_single_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a Fréchet distance needs at least 2 clips on each side, not 3 and 1$"):
        frechet_distance(features(3, 2, 1), features(1, 2, 1))
