import math
import statistics

import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor

from tests.evaluation.statistics.samples import features
from vdm.evaluation.statistics import kernel_distance
from vdm.evaluation.statistics.kernel_distance import KernelDistance

JEDI = KernelDistance(degree=2, coef0=0.0, subset_size=None, unbiased=False, scale=100.0)
"""Luo et al. 2024, as in the authors' code."""


def jedi_of_sklearn(one: Tensor, other: Tensor) -> float:
    """The authors' formula, on scikit-learn's kernel, as they compute it."""
    sides = [one[:, 0].double().numpy(), other[:, 0].double().numpy()]
    within_one, within_other, between = (
        polynomial_kernel(x, y, degree=2, coef0=0).mean() for x, y in ((sides[0],) * 2, (sides[1],) * 2, sides)
    )
    return 100 * (within_one + within_other - 2 * between)


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("options", [{}, {"degree": 2, "gamma": 0.3, "coef0": 0.5}])
def test_with_all_clips_in_each_subset_it_is_that_of_torch_fidelity(options: dict[str, float]) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    one, other = features(60, 8, 1).double(), features(60, 8, 2).double()
    theirs = {f"kid_kernel_poly_{key}": value for key, value in options.items()}
    peer = kid_features_to_metric(one[:, 0], other[:, 0], kid_subset_size=60, kid_subsets=2, verbose=False, **theirs)

    expected = peer[KEY_METRIC_KID_MEAN]
    assert KernelDistance(subset_size=60, **options).value(one, other) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("num_clips", [40, 400])  # kernels of all pairs at once, or subset by subset
def test_over_many_subsets_it_agrees_with_torch_fidelity(num_clips: int) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    one, other = features(num_clips, 8, 1).double(), features(num_clips, 8, 2).double()
    peer = kid_features_to_metric(one[:, 0], other[:, 0], kid_subset_size=20, kid_subsets=300, verbose=False)
    ours = KernelDistance(subset_size=20, num_subsets=300).value(one, other)

    error_of_difference = peer[KEY_METRIC_KID_STD] * math.sqrt(2 / 300)
    assert ours == pytest.approx(peer[KEY_METRIC_KID_MEAN], abs=4 * error_of_difference)


@pytest.mark.parametrize("num_subsets", [10, 1000])  # subset by subset, or kernels of all pairs at once
def test_a_subset_holds_no_clip_twice(num_subsets: int) -> None:
    """Of 0, ..., 0, 1000 with degree 1, the square of a difference of means, biased: repetition would show."""
    clips = torch.tensor([0.0] * 19 + [1000.0])[:, None, None]
    metric = KernelDistance(degree=1, gamma=1.0, coef0=0.0, subset_size=19, num_subsets=num_subsets, unbiased=False)

    assert metric.value(clips, torch.zeros(20, 1, 1)) <= (1000 / 19) ** 2 * (1 + 1e-9)


def test_it_is_that_of_jedi_for_sides_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_distance, "ROWS_AT_ONCE", 7)
    one, other = features(30, 8, 1), features(45, 8, 2)

    assert JEDI.value(one, other) == pytest.approx(jedi_of_sklearn(one, other), rel=1e-9)


def test_it_is_the_value_that_the_authors_of_jedi_give_for_an_example() -> None:
    """videojedi/mmd_polynomial.py, before the scale of 100."""
    one = torch.arange(1.0, 10.0).view(3, 1, 3)
    other = torch.tensor([[7.0, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])[:, None]

    assert JEDI.value(one, other) / 100 == pytest.approx(270.7, abs=0.05)


def test_over_sets_that_are_drawn_alike_the_unbiased_estimate_is_0_on_average_and_the_biased_one_is_not() -> None:
    def mean_and_error(metric: KernelDistance) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(0)
        draws = [torch.randn(2, 15, 1, 4, generator=generator) for _ in range(400)]
        values = [metric.value(*pair) for pair in draws]
        return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5

    unbiased, error = mean_and_error(KernelDistance())
    assert abs(unbiased) < 3 * error
    biased, error = mean_and_error(KernelDistance(unbiased=False))
    assert biased > 30 * error


def test_with_fewer_rows_than_a_subset_all_are_taken() -> None:
    one, other = features(30, 8, 1), features(30, 8, 2)

    from_all = KernelDistance(subset_size=None).value(one, other)
    assert KernelDistance(subset_size=1000).value(one, other) == pytest.approx(from_all, rel=1e-12)


def test_a_side_with_more_rows_is_cut_to_subsets_of_the_smaller_side() -> None:
    one, other = features(30, 8, 1), features(300, 8, 2)

    from_all = KernelDistance(subset_size=None).value(one, other)
    assert KernelDistance(num_subsets=1).value(one, other) != pytest.approx(from_all, rel=1e-3)
    assert KernelDistance(num_subsets=2000).value(one, other) == pytest.approx(from_all, rel=0.02)


def test_the_seed_alone_decides_the_subsets() -> None:
    one, other = features(50, 8, 1), features(50, 8, 2)
    first, again, another = (
        KernelDistance(subset_size=10, num_subsets=5, seed=seed).value(one, other) for seed in (0, 0, 1)
    )

    assert first == again
    assert first != another


def test_subsets_of_either_side_are_independent() -> None:
    """The same subset of equal sides would have the biased distance 0 from itself."""
    clips = features(50, 8, 1)

    assert KernelDistance(subset_size=10, num_subsets=5, unbiased=False).value(clips, clips) > 1e-3


def test_rows_of_all_clips_count_alike() -> None:
    one, other = features(10, 8, 1, rows=4), features(12, 8, 2, rows=4)

    pooled = JEDI.value(one.reshape(40, 1, 8), other.reshape(48, 1, 8))
    assert JEDI.value(one, other) == pytest.approx(pooled, rel=1e-12)


def test_it_asks_for_as_many_clips_as_a_subset_has() -> None:
    assert KernelDistance(subset_size=50).min_clips(400) == 50


def test_single_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a kernel distance needs at least 2 clips on each side, not 1 and 3$"):
        KernelDistance().value(features(1, 2, 1), features(3, 2, 1))


def test_a_subset_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^subset_size must be at least 2, but is 1$"):
        KernelDistance(subset_size=1)
