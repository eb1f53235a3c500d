"""The frames of a video that a protocol looks at."""

from typing import Literal

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


SLOW_THEN_FAST = [0.0, 0.1, 0.2, 0.3, 0.4, *(0.5 + number / 40 for number in range(21))]
"""Times of 26 frames: half a second at 10 frames a second, and half a second at 40."""


@pytest.mark.parametrize("start", ["first", "center"])
def test_at_a_rate_that_varies_frames_are_chosen_by_their_times(start: Literal["first", "center"]) -> None:
    rule = ClipRule(8, fps=10.0, start=start)
    begin = 0.0 if start == "first" else 0.15
    chosen = rule.frames(26, 26.0, SLOW_THEN_FAST)
    for number, frame in enumerate(chosen):
        wanted = begin + number / 10
        nearest = min(abs(time - wanted) for time in SLOW_THEN_FAST)
        assert abs(SLOW_THEN_FAST[frame] - wanted) == pytest.approx(nearest, abs=1e-9)
    assert chosen != rule.frames(26, 26.0)
    with pytest.raises(
        TooShortError, match=r"^shows its last frame after 1 s; 20 at 10 frames per second take 1\.9 s$"
    ):
        ClipRule(20, fps=10.0, start=start).frames(26, 26.0, SLOW_THEN_FAST)


@pytest.mark.parametrize("fps", [24.0, 30000 / 1001, 60.0])
@pytest.mark.parametrize("rate", [8.0, 10.0, 30.0])
def test_times_that_a_container_rounds_change_nothing(fps: float, rate: float) -> None:
    times = [7.0 + round(number / fps, 3) for number in range(200)]
    rule = ClipRule(16, fps=min(rate, fps))
    assert rule.frames(200, fps, times) == rule.frames(200, fps)
    assert ClipRule(16).frames(26, 26.0, SLOW_THEN_FAST) == list(range(16))


def test_cut_takes_the_frames_of_the_video() -> None:
    video = torch.arange(20, dtype=torch.uint8).view(1, 20, 1, 1)
    assert ClipRule(3, fps=10.0, start="center").cut(video, 20.0).flatten().tolist() == [7, 9, 11]
