from itertools import product

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from tests.evaluation.statistics.samples import features
from vdm.evaluation.statistics import frechet
from vdm.evaluation.statistics.frechet import FrechetDistance, Moments


def with_exact_moments(mean: list[float], covariance: list[list[float]]) -> Tensor:
    """Return float64 features of which mean and covariance (divisor n) are exactly these."""
    width = len(mean)
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=width)), dtype=torch.float64)  # mean 0, covariance 1
    factor = torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64))
    return (corners @ factor.T + torch.tensor(mean, dtype=torch.float64))[:, None]


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("num_clips", [40, 200])
def test_it_is_that_of_the_formula_with_scipy_s_matrix_root(num_clips: int, ddof: int) -> None:
    one, other = features(200, 8, 1), features(num_clips, 8, 2)
    covariances = [np.cov(x[:, 0].double().numpy(), rowvar=False, ddof=ddof) for x in (one, other)]
    shift = (one.double().mean(0) - other.double().mean(0)).square().sum().item()
    expected = shift + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real)

    assert FrechetDistance(ddof).value(one, other) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("peers")
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_it_is_that_of_cd_fvd() -> None:
    from cdfvd.fvd import cdfvd
    from cdfvd.utils.metric_utils import FeatureStats

    one, other = features(300, 32, 1), features(200, 32, 2)
    moments = [FeatureStats(capture_mean_cov=True) for _ in range(2)]
    for stats, side in zip(moments, (one, other), strict=True):
        stats.append(side[:, 0].numpy())
    expected = cdfvd.compute_fvd_from_stats(object.__new__(cdfvd), *moments)  # its constructor loads a network

    assert FrechetDistance().value(one, other) == pytest.approx(expected, rel=1e-9)


def test_of_uncorrelated_features_it_is_the_distance_of_means_and_of_deviations() -> None:
    one = with_exact_moments([0, 1, 2], [[4, 0, 0], [0, 9, 0], [0, 0, 1]])
    other = with_exact_moments([3, 1, 0], [[1, 0, 0], [0, 25, 0], [0, 0, 1]])

    assert FrechetDistance().value(one, other) == pytest.approx((3**2 + 2**2) + (1**2 + 2**2), rel=1e-12)


def test_of_two_correlated_features_it_is_the_closed_form() -> None:
    """The root of a 2x2 matrix M has the trace sqrt(tr M + 2 sqrt(det M))."""
    c1, c2 = [[2.0, 1.0], [1.0, 3.0]], [[1.0, -0.5], [-0.5, 0.5]]
    trace = 2 * 1 + 2 * 1 * -0.5 + 3 * 0.5  # of C1 C2
    determinant = (2 * 3 - 1) * (0.5 - 0.25)
    expected = 1 + (2 + 3 + 1 + 0.5) - 2 * (trace + 2 * determinant**0.5) ** 0.5

    one, other = with_exact_moments([0, 0], c1), with_exact_moments([1, 0], c2)
    assert FrechetDistance().value(one, other) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("num_clips", "width"), [(2, 3), (4, 32), (100, 400), (300, 32)])
def test_it_is_0_for_a_set_and_itself_in_any_order(num_clips: int, width: int) -> None:
    clips = features(num_clips, width, 3)

    assert FrechetDistance().value(clips, clips) == pytest.approx(0, abs=1e-8)
    assert FrechetDistance().value(clips, clips.flip(0)) == pytest.approx(0, abs=1e-8)


def test_it_is_0_for_equal_sets_with_features_that_are_always_0_or_equal_each_other() -> None:
    clips = features(300, 32, 3)
    clips[..., 5] = 0
    clips[..., 7] = clips[..., 8]

    assert FrechetDistance().value(clips, clips.flip(0)) == pytest.approx(0, abs=1e-8)


def test_of_clips_that_are_all_the_same_it_is_that_of_means_alone() -> None:
    one, other = torch.zeros(5, 1, 3), torch.full((4, 1, 3), 2.0)

    assert FrechetDistance().value(one, other) == 3 * 2**2


@pytest.mark.parametrize("num_clips", [20, 300])  # of 32 features: one covariance of rank 19, one of full rank
def test_neither_order_nor_parts_change_it(monkeypatch: pytest.MonkeyPatch, num_clips: int) -> None:
    one, other = features(num_clips, 32, 1), features(num_clips + 1, 32, 2)
    whole = FrechetDistance().value(one, other)
    monkeypatch.setattr(frechet, "ROWS_AT_ONCE", 7)
    shuffled = one[torch.randperm(num_clips, generator=torch.Generator().manual_seed(0))]
    of_processes = Moments.of(one[:1]) + Moments.of(one[1:13]) + Moments.of(one[13:])

    assert FrechetDistance().value(shuffled, other) == pytest.approx(whole, rel=1e-12)
    assert FrechetDistance().between(of_processes, Moments.of(other)) == pytest.approx(whole, rel=1e-12)


def test_a_mean_far_above_the_deviations_costs_no_digits() -> None:
    one, other = features(200, 8, 1).double(), features(200, 8, 2).double()
    near = FrechetDistance().value(one, other)

    assert FrechetDistance().value(one + 1e6, other + 1e6) == pytest.approx(near, rel=1e-8)


def test_rows_of_all_clips_count_alike() -> None:
    one, other = features(50, 8, 1, rows=4), features(60, 8, 2, rows=4)

    pooled = FrechetDistance().value(one.reshape(200, 1, 8), other.reshape(240, 1, 8))
    assert FrechetDistance().value(one, other) == pytest.approx(pooled, rel=1e-12)


def test_the_least_number_of_clips_gives_covariances_of_full_rank() -> None:
    enough = FrechetDistance().min_clips(8)

    ranks = [int(torch.linalg.matrix_rank(Moments.of(features(n, 8, 1)).covariance(0))) for n in (enough, enough - 1)]
    assert ranks == [8, 7]


def test_single_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a Fréchet distance needs at least 2 clips on each side, not 3 and 1$"):
        FrechetDistance().value(features(3, 2, 1), features(1, 2, 1))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(wrong: float) -> None:
    clips = features(3, 2, 1)
    clips[1, 0, 1] = wrong
    with pytest.raises(ValueError, match=r"^a Fréchet distance .*: features of reference clips hold NaN or infinity$"):
        FrechetDistance().value(features(3, 2, 1), clips)


def test_a_reference_is_needed() -> None:
    with pytest.raises(ValueError, match=r"^a Fréchet distance needs reference clips$"):
        FrechetDistance().value(features(3, 2, 1), None)
