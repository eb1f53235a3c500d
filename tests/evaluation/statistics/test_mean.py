import pytest
import torch

from vdm.evaluation.statistics.mean import Mean, MeanDifference, Share

ONE, OTHER = torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]]]), torch.tensor([[[4.0], [6.0]]])


def test_mean_is_that_of_all_rows() -> None:
    assert Mean().value(ONE) == 3


def test_share_is_the_mean_of_zeros_and_ones() -> None:
    assert Share().value(torch.tensor([[[1.0]], [[0.0]], [[0.0]], [[0.0]]])) == 0.25
    with pytest.raises(ValueError, match=r"^a share needs scores of 0 or 1; "):
        Share().value(torch.tensor([[[1.0]], [[0.5]]]))


def test_difference_is_that_of_generated_from_reference_clips() -> None:
    assert MeanDifference().value(ONE, OTHER) == -2
    assert MeanDifference().value(OTHER, ONE) == 2


def test_many_scores_are_added_in_float64() -> None:
    scores = torch.full((3_000_000, 1, 1), 0.1)

    assert Mean().value(scores) == pytest.approx(scores[0].item(), rel=1e-12)


def test_no_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a mean needs at least 1 clip, not 0$"):
        Mean().value(ONE[:0])
    with pytest.raises(
        ValueError, match=r"^a difference between means needs at least 1 clip on each side, not 2 and 0$"
    ):
        MeanDifference().value(ONE, OTHER[:0])


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a mean can't be computed: features of generated clips hold NaN or infin"):
        Mean().value(ONE / 0)
