import math
from collections.abc import Iterator

import pytest
import torch

from vdm.evaluation.moving_digits import DigitClassifier, captioned_directions, score, seen_directions, train_classifier
from vdm.types import ClipBatch

DIRECTIONS = {
    "to the right": (1, 0),
    "to the left": (-1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up and to the right": (1, -1),
    "up and to the left": (-1, -1),
    "down and to the right": (1, 1),
    "down and to the left": (-1, 1),
}


def bars(label: int, direction: tuple[int, int], speed: int = 1) -> torch.Tensor:
    """Return a clip of one bar of ``label + 2`` bright columns that moves ``speed`` pixels a frame."""
    video = torch.zeros(3, 8, 32, 32, dtype=torch.uint8)
    for t in range(8):
        x, y = (10 + direction[axis] * speed * t for axis in (0, 1))
        video[:, t, y : y + 4, x : x + label + 2] = 255
    return video


@pytest.mark.parametrize("words", DIRECTIONS)
def test_motion_is_seen_as_it_is_captioned(words: str) -> None:
    expected = torch.tensor([DIRECTIONS[words]])
    assert captioned_directions([f"the digit three moves {words}"]).equal(expected)
    assert seen_directions(bars(3, DIRECTIONS[words])[None]).equal(expected)


def test_dim_background_does_not_hide_motion() -> None:
    video = bars(3, (1, 0)).clamp(min=30)
    assert seen_directions(video[None]).tolist() == [[1, 0]]


def test_classifier_learns_classes_and_shares_are_counted() -> None:
    words = "to the right"

    def batches() -> Iterator[ClipBatch]:
        for step in range(10_000):
            labels = torch.tensor([(step + i) % 10 for i in range(8)])
            video = torch.stack([bars(int(label), DIRECTIONS[words]) for label in labels])
            yield ClipBatch(video, ("",) * 8, labels, labels, torch.ones(8), ("",) * 8, torch.ones(8))

    classifier = train_classifier(batches())
    video = torch.stack([bars(label, DIRECTIONS[words]) for label in range(10)])
    captions = [f"the digit moves {words}"] * 10
    right = score(classifier, video, captions, torch.arange(10))
    assert right.digit >= 0.9
    assert right.direction == 1.0
    wrong = score(classifier, video, ["the digit moves up"] * 10, (torch.arange(10) + 1) % 10)
    assert wrong.digit <= 0.1
    assert wrong.direction == 0.0


def test_directions_are_told_apart_at_half_of_45_degrees() -> None:
    slow = torch.zeros(1, 3, 9, 32, 32, dtype=torch.uint8)
    for t in range(9):
        x, y = 8 + 2 * t, 8 + round(2 * t * math.tan(math.radians(15)))
        slow[0, :, t, y : y + 4, x : x + 4] = 255
    assert seen_directions(slow).tolist() == [[1, 0]]


def test_features_are_a_row_for_each_clip_and_do_not_depend_on_the_order_of_frames() -> None:
    video = torch.stack([bars(label, (1, 0)) for label in (3, 7)])
    classifier = DigitClassifier().eval()
    features = classifier.describe(video)

    assert features.shape == (2, 64)
    assert not torch.allclose(features[0], features[1])
    torch.testing.assert_close(classifier.describe(video.flip(2)), features)
