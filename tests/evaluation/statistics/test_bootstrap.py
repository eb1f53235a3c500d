import statistics

import pytest
from scipy.stats import binomtest
from torch import Tensor

from tests.evaluation.statistics.samples import features
from vdm.evaluation.base import Statistic
from vdm.evaluation.statistics.bootstrap import interval, interval_of_share, standard_error
from vdm.evaluation.statistics.frechet import FrechetDistance
from vdm.evaluation.statistics.inception_score import InceptionScore
from vdm.evaluation.statistics.kernel_distance import KernelDistance
from vdm.evaluation.statistics.mean import Mean, MeanDifference


def error_of_mean(scores: Tensor) -> float:
    return float(scores.std(correction=0)) / len(scores) ** 0.5


def test_of_a_mean_it_is_the_deviation_over_the_root_of_the_number_of_clips() -> None:
    scores = features(50, 1, 1)

    assert standard_error(Mean(), scores, None, 2000) == pytest.approx(error_of_mean(scores), rel=0.06)


def test_of_a_difference_both_sides_count() -> None:
    one, other = features(50, 1, 1), features(20, 1, 3)
    expected = (error_of_mean(one) ** 2 + error_of_mean(other) ** 2) ** 0.5
    assert min(error_of_mean(one), error_of_mean(other)) > 0.3 * expected

    assert standard_error(MeanDifference(), one, other, 2000) == pytest.approx(expected, rel=0.06)


def test_a_clip_s_rows_stay_together() -> None:
    """Ten equal rows a clip say no more than one; drawn one by one, they would divide the error by sqrt(10)."""
    scores = features(50, 1, 1)

    alone = standard_error(Mean(), scores, None)
    assert standard_error(Mean(), scores.expand(50, 10, 1), None) == pytest.approx(alone, rel=1e-9)


@pytest.mark.parametrize("statistic", [FrechetDistance(), KernelDistance()])
def test_of_a_distance_it_is_the_spread_over_sets_that_are_drawn_anew(statistic: Statistic) -> None:
    both = [(features(80, 4, 1, seed_of_draw=draw), features(60, 4, 2, seed_of_draw=draw)) for draw in range(200)]
    spread = statistics.stdev(statistic.value(*sides) for sides in both)
    errors = [standard_error(statistic, *sides) for sides in both[:10]]

    assert statistics.mean(errors) == pytest.approx(spread, rel=0.25)


def test_it_works_for_scores_of_parts() -> None:
    assert 0 < standard_error(InceptionScore(num_splits=5), features(50, 7, 1), None) < 1


def test_the_seed_alone_decides_the_resamples() -> None:
    scores = features(50, 1, 1)
    first, again, another = (standard_error(Mean(), scores, None, 10, seed) for seed in (0, 0, 1))

    assert first == again
    assert first != another


def test_sides_of_equal_clips_are_resampled_independently() -> None:
    scores = features(50, 1, 1)

    assert standard_error(MeanDifference(), scores, scores) > error_of_mean(scores)


def test_an_interval_reaches_1_96_standard_errors_to_either_side() -> None:
    assert interval(10.0, 2.0) == pytest.approx((6.08, 13.92))


@pytest.mark.parametrize(("count", "num_clips"), [(0, 20), (1, 20), (7, 20), (20, 20), (1, 1), (0, 3), (499, 500)])
def test_interval_of_a_share_is_that_of_the_score_test(count: int, num_clips: int) -> None:
    expected = binomtest(count, num_clips).proportion_ci(0.95, method="wilson")
    low, high = interval_of_share(count / num_clips, num_clips)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=2e-5)  # by 1.96, rounded
    assert 0 <= low <= count / num_clips <= high <= 1


@pytest.mark.parametrize(
    ("num_clips", "num_resamples", "message"),
    [
        (1, 50, "a standard error needs at least 2 clips on each side"),
        (5, 1, "a standard error needs at least 2 resamples, not 1"),
    ],
)
def test_too_few_clips_or_resamples_are_refused(num_clips: int, num_resamples: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        standard_error(Mean(), features(num_clips, 1, 1), None, num_resamples)
