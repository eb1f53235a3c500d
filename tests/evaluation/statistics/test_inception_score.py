import pytest
import torch

from tests.evaluation.statistics.samples import features
from vdm import randomness
from vdm.evaluation.statistics.inception_score import InceptionScore


def one_hot(labels: list[int], num_classes: int) -> torch.Tensor:
    """Return logits of a classifier that is certain."""
    return 100 * torch.nn.functional.one_hot(torch.tensor(labels), num_classes)[:, None].float()


def test_it_is_1_for_a_classifier_that_knows_nothing() -> None:
    assert InceptionScore().value(torch.full((20, 1, 7), 3.0)) == pytest.approx(1, abs=1e-12)


def test_it_is_1_for_clips_of_a_single_class() -> None:
    assert InceptionScore().value(one_hot([2] * 20, 7)) == pytest.approx(1, abs=1e-12)


def test_it_is_the_number_of_classes_for_certain_and_even_ones() -> None:
    assert InceptionScore(num_splits=1).value(one_hot(list(range(7)) * 3, 7)) == pytest.approx(7, rel=1e-12)


def test_it_is_the_exponential_of_the_entropy_of_certain_classes() -> None:
    """p = (3/4, 1/4): exp(-3/4 log 3/4 - 1/4 log 1/4) = 4 / 3^(3/4)."""
    assert InceptionScore(num_splits=1).value(one_hot([0, 0, 0, 1], 2)) == pytest.approx(4 / 3**0.75, rel=1e-12)


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize(("num_clips", "num_splits"), [(50, 1), (50, 10), (57, 10)])
def test_it_is_that_of_torch_fidelity_for_the_same_order_of_clips(num_clips: int, num_splits: int) -> None:
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    logits = features(num_clips, 7, 1)
    order = randomness.permutation(3, "inception score", 0, num_clips)
    peer = isc_features_to_metric(logits[order, 0], splits=num_splits, shuffle=False)

    ours = InceptionScore(num_splits, seed=3).value(logits)
    assert ours == pytest.approx(peer[KEY_METRIC_ISC_MEAN], rel=1e-12)


def test_clips_that_come_class_by_class_score_as_others() -> None:
    """In order, each of 7 parts would be of one class, and have the score 1."""
    by_class = one_hot([label for label in range(7) for _ in range(50)], 7)

    assert InceptionScore(num_splits=7).value(by_class) > 6


def test_rows_of_all_clips_count_alike() -> None:
    logits = features(10, 7, 1, rows=4)

    pooled = InceptionScore(num_splits=1).value(logits.reshape(40, 1, 7))
    assert InceptionScore(num_splits=1).value(logits) == pytest.approx(pooled, rel=1e-12)


def test_the_least_number_of_clips_lets_parts_reach_the_highest_score() -> None:
    """A score of n rows is at most n, and at most the number of classes."""
    assert InceptionScore(num_splits=10).min_clips(7) == 70


def test_fewer_clips_than_parts_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^an inception score of 10 parts \(num_splits\) needs at least 10 clips, not 9$"
    ):
        InceptionScore().value(features(9, 7, 1))
