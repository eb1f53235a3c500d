"""Which frames of a clip are known: draws in training."""

import pytest
import torch

from vdm.known_frames import AnyFrames, BothEnds, EveryKthFrame, FirstFrames, FrameChoice, LastFrames, OneOf
from vdm.randomness import uniform

CLIPS = range(2000)


def drawn(choice: FrameChoice, num_frames: int = 5) -> list[tuple[int, ...]]:
    """Return the known frames of many clips."""
    is_known = choice(lambda purpose: uniform(0, purpose, CLIPS), num_frames)
    assert is_known.shape == (len(CLIPS), num_frames)
    return [tuple(row.nonzero().flatten().tolist()) for row in is_known]


def shares(found: list[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    return {each: found.count(each) / len(found) for each in set(found)}


CASES: list[tuple[FrameChoice, set[tuple[int, ...]]]] = [
    (FirstFrames(), {(0,)}),
    (FirstFrames(1, 2), {(0,), (0, 1)}),
    (LastFrames(), {(4,)}),
    (LastFrames(2, 3), {(3, 4), (2, 3, 4)}),
    (BothEnds(), {(0, 4)}),
    (EveryKthFrame(2), {(0, 2, 4)}),
    (EveryKthFrame(4), {(0, 4)}),
    (AnyFrames(1, 1), {(0,), (1,), (2,), (3,), (4,)}),
    (OneOf((FirstFrames(), LastFrames(), BothEnds())), {(0,), (4,), (0, 4)}),
]


@pytest.mark.parametrize(("choice", "expected"), CASES, ids=str)
def test_all_frames_that_can_be_drawn_are_equally_likely(choice: FrameChoice, expected: set[tuple[int, ...]]) -> None:
    found = shares(drawn(choice))

    assert found.keys() == expected
    deviation = (1 / len(expected) / len(CLIPS)) ** 0.5
    assert all(abs(share - 1 / len(expected)) < 4 * deviation for share in found.values())
    assert all(choice.may_be(known, 5) for known in expected)
    others = [known for known in ((0,), (1,), (4,), (0, 1), (0, 4), (1, 3), (0, 2, 4)) if known not in expected]
    assert not any(choice.may_be(known, 5) for known in others)
    assert choice.is_first_frame == (expected == {(0,)})


def test_any_two_frames_are_as_likely_as_others() -> None:
    found = shares(drawn(AnyFrames(2, 2)))

    assert len(found) == 10
    assert all(abs(share - 0.1) < 4 * (0.1 / len(CLIPS)) ** 0.5 for share in found.values())


@pytest.mark.parametrize(
    "choice",
    [FirstFrames(3, 5), LastFrames(3, 5), BothEnds(), EveryKthFrame(), AnyFrames(3, 5), OneOf((BothEnds(),))],
    ids=str,
)
@pytest.mark.parametrize("num_frames", [1, 2])
def test_at_least_one_frame_stays_unknown(choice: FrameChoice, num_frames: int) -> None:
    found = drawn(choice, num_frames)

    assert all(len(known) == num_frames - 1 for known in found)


@pytest.mark.parametrize("kind", [FirstFrames, LastFrames, AnyFrames])
@pytest.mark.parametrize(("least", "most"), [(0, 1), (3, 2)])
def test_numbers_must_be_in_order(kind: type[FirstFrames], least: int, most: int) -> None:
    message = rf"^min_frames and max_frames must be at least 1, .*, but are {least} and {most}$"
    with pytest.raises(ValueError, match=message):
        kind(least, most)


def test_every_frame_can_not_be_known() -> None:
    with pytest.raises(ValueError, match=r"^every must be at least 2, but is 1$"):
        EveryKthFrame(1)


def test_clips_draw_for_themselves() -> None:
    def of(clips: list[int]) -> torch.Tensor:
        return AnyFrames(1, 3)(lambda purpose: uniform(0, purpose, clips), 5)

    assert torch.equal(of([3, 4, 5])[1:2], of([4]))
