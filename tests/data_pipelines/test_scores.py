"""Scores against what is known of made pictures."""

import cv2
import numpy as np
import pytest
import torch
from einops import rearrange

from data_pipelines.scores.base import SeenClip
from data_pipelines.scores.motion import OpticalFlow
from data_pipelines.scores.picture import BarFraction, BlackFraction, Sharpness
from vdm.data.motion import PIXELS_PER_FRAME, motion_of, stored_motion


def _texture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(np.tile(noise, (3, 3, 1)), (0, 0), 4)[height : 2 * height, width : 2 * width]
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)  # pyright: ignore


@pytest.mark.parametrize("speed", [1, 3, 8])
def test_motion_is_how_far_the_picture_moves_a_frame(speed: int) -> None:
    picture = _texture(256, 384)
    clip = SeenClip(np.stack([np.roll(picture, speed * n, axis=1) for n in range(5)]))

    assert OpticalFlow()(clip) == pytest.approx(speed, abs=0.3)


def test_motion_is_what_training_measures_where_shards_say_nothing() -> None:
    picture = _texture(256, 384)
    frames = np.stack([np.roll(picture, 3 * n, axis=1) for n in range(5)])

    measured = OpticalFlow()(SeenClip(frames))

    assert stored_motion({PIXELS_PER_FRAME: measured}, fps=8) == pytest.approx(
        motion_of(rearrange(torch.from_numpy(frames), "t h w c -> c t h w"), fps=8), rel=1e-5
    )


def test_still_clip_and_single_frame_do_not_move() -> None:
    picture = _texture(256, 384)

    assert OpticalFlow()(SeenClip(np.stack([picture] * 4))) < 0.01
    assert OpticalFlow()(SeenClip(picture[None])) == 0


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur() -> None:
    picture = _texture(256, 384)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float)
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray

    assert Sharpness()(SeenClip(picture[None])) == pytest.approx(laplacian.var(), rel=1e-6)
    assert Sharpness()(SeenClip(cv2.GaussianBlur(picture, (0, 0), 8)[None])) < 0.1 * laplacian.var()


def test_black_fraction_counts_frames() -> None:
    frames = np.stack([np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 90, np.uint8)] * 3)

    assert BlackFraction()(SeenClip(frames)) == 0.5


@pytest.mark.parametrize(("rows", "columns"), [(32, 0), (0, 48), (32, 48), (0, 0)])
def test_bar_fraction_is_the_share_of_the_area(rows: int, columns: int) -> None:
    frames = np.full((3, 256, 384, 3), 130, np.uint8)
    frames[:, :rows] = frames[:, 256 - rows :] = 0
    frames[:, :, :columns] = frames[:, :, 384 - columns :] = 0

    inside = (256 - 2 * rows) * (384 - 2 * columns) / (256 * 384)
    assert BarFraction()(SeenClip(frames)) == pytest.approx(1 - inside, abs=0.01)
