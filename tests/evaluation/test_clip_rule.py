"""The frames of a video that a protocol looks at."""

import pytest
import torch

from vdm.evaluation.clip_rule import ClipRule, TooShortError


def test_frames_are_consecutive_from_the_start_or_the_middle() -> None:
    assert ClipRule(4).frames(10, 30.0) == [0, 1, 2, 3]
    assert ClipRule(4, start="center").frames(10, None) == [3, 4, 5, 6]


@pytest.mark.parametrize("stored_fps", [24.0, 30.0, 59.94, 25.0])
def test_frames_at_a_rate_are_those_nearest_in_time(stored_fps: float) -> None:
    frames = ClipRule(8, fps=8.0).frames(100, stored_fps)
    for number, frame in enumerate(frames):
        assert abs(frame / stored_fps - number / 8.0) <= 0.5 / stored_fps + 1e-9


def test_a_rate_that_is_nearly_the_stored_one_takes_each_frame() -> None:
    assert ClipRule(100, fps=30.0).frames(100, 30000 / 1001) == list(range(100))


@pytest.mark.parametrize(
    ("rule", "num_stored", "fps", "message"),
    [
        (ClipRule(16), 15, 30.0, r"has 15 frames; 16 take 16"),
        (ClipRule(16, fps=8.0), 40, 24.0, r"has 40 frames; 16 at 8 frames per second take 46"),
        (ClipRule(2, fps=25.0), 40, 24.0, r"has 24 frames per second; 25 are looked at"),
        (ClipRule(2, fps=25.0), 40, None, r"does not say its frames per second"),
    ],
)
def test_too_short_videos_are_refused(rule: ClipRule, num_stored: int, fps: float | None, message: str) -> None:
    with pytest.raises(TooShortError, match=message):
        rule.frames(num_stored, fps)


def test_cut_takes_the_frames_of_the_video() -> None:
    video = torch.arange(20, dtype=torch.uint8).view(1, 20, 1, 1)
    assert ClipRule(3, fps=10.0, start="center").cut(video, 20.0).flatten().tolist() == [7, 9, 11]
