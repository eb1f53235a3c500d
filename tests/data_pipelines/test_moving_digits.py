import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from data_pipelines.moving_digits import (
    DIRECTIONS,
    LABELS,
    PATH,
    STRAIGHT,
    Handwriting,
    draw_motions,
    positions,
    read_moving_digits,
)
from data_pipelines.settings import BuildSettings, ClipOptions

SETTINGS = BuildSettings(input="moving_digits", output=Path("unused"))


@pytest.fixture(scope="module")
def sources() -> tuple[Handwriting, ...]:
    found = read_moving_digits(SETTINGS).sources
    assert all(isinstance(source, Handwriting) for source in found)
    return found  # pyright: ignore[reportReturnType]


def _centres(video: np.ndarray) -> np.ndarray:
    """Centre of mass of every frame: column, row."""
    mass = video[..., 0].astype(float)
    columns, rows = np.arange(mass.shape[2]), np.arange(mass.shape[1])
    total = mass.sum((1, 2))
    return np.stack([(mass.sum(1) * columns).sum(1) / total, (mass.sum(2) * rows).sum(1) / total], axis=1)


def test_every_handwriting_is_a_source_with_its_digit(sources: tuple[Handwriting, ...]) -> None:
    digits = load_digits(return_X_y=True)[1]

    assert [source.digit for source in sources] == digits.tolist()
    assert len({source.name for source in sources}) == 1797


def test_clips_are_of_the_default_size_and_white_on_black(sources: tuple[Handwriting, ...]) -> None:
    for clip in sources[0].clips():
        assert clip.video.shape == (8, 32, 32, 3)
        assert clip.video.min() == 0
        assert (clip.video == clip.video[..., :1]).all()


def test_caption_names_digit_and_direction(sources: tuple[Handwriting, ...]) -> None:
    clips = [clip for source in sources[:100] for clip in source.clips()]

    for clip in clips:
        assert clip.metadata["caption"] == (
            f"the digit {LABELS[clip.metadata['label']]} moves {DIRECTIONS[clip.metadata['direction']]}"
        )
    assert {clip.metadata["direction"] for clip in clips} == set(DIRECTIONS)


def test_what_moves_moves_as_the_caption_says(sources: tuple[Handwriting, ...]) -> None:
    for source in sources[::20]:
        for clip in source.clips():
            shift = np.diff(_centres(clip.video)[[0, -1]], axis=0)[0]
            nearest = max(DIRECTIONS, key=lambda direction: shift @ direction / np.linalg.norm(direction))
            assert nearest == clip.metadata["direction"]


def test_path_is_straight_for_three_quarters_and_stays_in_the_frame(sources: tuple[Handwriting, ...]) -> None:
    clip = dataclasses.replace(SETTINGS.resolved_clip(), num_frames=401)
    for motion in (motion for source in sources[::20] for motion in source.motions):
        for step, place in zip(motion.direction, positions(motion, clip, side=16), strict=True):
            assert -1e-9 <= place.min() <= place.max() <= 16 + 1e-9
            steps = np.diff(place) * step
            if step == 0:
                assert np.ptp(place) == 0
            else:
                assert (steps[: int(STRAIGHT * 400)] > 0).all()
                speeds = np.sort(np.abs(steps))[2:]  # but for the two steps that may hold a bounce
                assert speeds == pytest.approx(speeds[-1])
                assert PATH[0] * 16 <= 400 * speeds[-1] <= PATH[1] * 16 + 1e-9


def test_digit_is_the_handwriting_in_the_double_size(sources: tuple[Handwriting, ...]) -> None:
    pixels = load_digits().images[0]  # pyright: ignore[reportAttributeAccessIssue]
    video = next(sources[0].clips()).video[..., 0].astype(float)

    for frame in video:
        assert np.count_nonzero(frame.sum(1) > 64) == pytest.approx(2 * np.count_nonzero(pixels.sum(1)), abs=3)
        assert np.count_nonzero(frame.sum(0) > 64) == pytest.approx(2 * np.count_nonzero(pixels.sum(0)), abs=3)
        assert frame.sum() / 255 == pytest.approx(4 * pixels.sum() / 16, rel=0.15)


def test_motions_of_one_handwriting_differ_in_direction() -> None:
    directions = [motion.direction for motion in draw_motions(0, 5, 16)]

    assert set(directions[:8]) == set(directions[8:]) == set(DIRECTIONS)


def test_seed_and_handwriting_decide_the_motions() -> None:
    draws = [tuple(draw_motions(seed, handwriting, 3)) for seed, handwriting in [(0, 5), (1, 5), (0, 6), (0, 5)]]

    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


@pytest.mark.parametrize(("num_frames", "height", "width"), [(1, 32, 32), (4, 16, 48), (3, 64, 20)])
def test_other_sizes_work(sources: tuple[Handwriting, ...], num_frames: int, height: int, width: int) -> None:
    settings = ClipOptions(num_frames=num_frames, height=height, width=width).resolve(8, 8, 32, 32)
    source = dataclasses.replace(sources[0], settings=settings)

    assert all(clip.video.shape == (num_frames, height, width, 3) and clip.video.any() for clip in source.clips())
