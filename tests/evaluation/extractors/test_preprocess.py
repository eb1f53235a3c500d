"""Each rule against a straight transcription of the published one, pixel by pixel."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from einops import rearrange

from tests.evaluation.extractors.networks import batch, make_clips
from vdm.evaluation.extractors import preprocess

TOLERANCE = 2e-4
"""Of pixels from -1 to 1: fp32 can't place a pixel among 320 more exactly than 1e-5, and noise is steep."""
SIZES = [(20, 28), (240, 320), (33, 17), (224, 224), (300, 226)]


def lerp_at(frame: np.ndarray, y: float, x: float) -> np.ndarray:
    """Return the bilinear value of ``frame``, ``h w c``, at a place inside it."""
    height, width = frame.shape[:2]
    top, left = min(math.floor(y), height - 1), min(math.floor(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    above = frame[top, left] * (1 - dx) + frame[top, right] * dx
    below = frame[bottom, left] * (1 - dx) + frame[bottom, right] * dx
    return above * (1 - dy) + below * dy


def half_pixel(place: int, old: int, new: int) -> float:
    return min(max((place + 0.5) * old / new - 0.5, 0), old - 1)


def tensorflow1(place: int, old: int, new: int) -> float:
    return place * old / new


def corners(place: int, old: int, new: int) -> float:
    return place * (old - 1) / (new - 1)


def resized_at(
    frame: np.ndarray, rule: Callable[[int, int, int], float], y: int, x: int, new: tuple[int, int]
) -> np.ndarray:
    return lerp_at(frame, rule(y, frame.shape[0], new[0]), rule(x, frame.shape[1], new[1]))


def probes(size: int) -> list[tuple[int, int]]:
    """Return corners, and places all over the picture."""
    last = size - 1
    return [(0, 0), (0, last), (last, 0), (last, last), *((i * 37 % size, i * 53 % size) for i in range(60))]


def frames_of(size: tuple[int, int]) -> tuple[torch.Tensor, np.ndarray]:
    video = batch(make_clips(2, 3, *size))
    return video, rearrange(video[1, :, 2], "c h w -> h w c").double().numpy()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_original_fvd_resizes_as_tensorflow_1(size: tuple[int, int]) -> None:
    video, frame = frames_of(size)
    prepared = preprocess.i3d_original(video)
    assert prepared.shape == (2, 3, 3, 224, 224)
    for y, x in probes(224):
        expected = 2 * resized_at(frame, tensorflow1, y, x, (224, 224)) / 255 - 1
        np.testing.assert_allclose(prepared[1, :, 2, y, x], expected, atol=TOLERANCE)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cdfvd_resizes_between_half_pixel_centres(size: tuple[int, int]) -> None:
    video, frame = frames_of(size)
    of_i3d, of_videomae = preprocess.i3d_cdfvd(video), preprocess.videomae_cdfvd(video)
    for y, x in probes(224):
        value = resized_at(frame, half_pixel, y, x, (224, 224)) / 255
        np.testing.assert_allclose(of_i3d[1, :, 2, y, x], 2 * value - 1, atol=TOLERANCE)
        np.testing.assert_allclose(of_videomae[1, :, 2, y, x], value, atol=TOLERANCE)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_shorter_side_rule_resizes_and_crops_the_middle(size: tuple[int, int]) -> None:
    video, frame = frames_of(size)
    prepared = preprocess.i3d_shorter_side(video)
    assert prepared.shape == (2, 3, 3, 224, 224)
    scale = 224 / min(size)
    new = (224, math.ceil(size[1] * scale)) if size[0] < size[1] else (math.ceil(size[0] * scale), 224)
    top, left = (new[0] - 224) // 2, (new[1] - 224) // 2
    for y, x in probes(224):
        value = resized_at(frame, half_pixel, y + top, x + left, new) / 255
        np.testing.assert_allclose(prepared[1, :, 2, y, x], (value - 0.5) * 2, atol=TOLERANCE)


def test_tgan2_rule_is_bgr_between_corners_minus_the_mean() -> None:
    video = batch(make_clips(2, 16, 64, 64))
    frame = rearrange(video[1, :, 5], "c h w -> h w c").double().numpy()
    mean = torch.rand(3, 16, 128, 171) * 100
    prepared = preprocess.c3d_tgan2(video, mean)
    assert prepared.shape == (2, 3, 16, 112, 112)
    for y, x in probes(112):
        expected = resized_at(frame, corners, y, x, (112, 112))[::-1] - mean[:, 5, 8 + y, 8 + x].numpy()
        np.testing.assert_allclose(prepared[1, :, 5, y, x], expected, atol=1e-3)


def triangle(old: int, new: int) -> np.ndarray:
    """Return the matrix of a bilinear resize with antialiasing: triangles as wide as the new pixels."""
    scale = max(old / new, 1)
    centres = (np.arange(new)[:, None] + 0.5) * old / new
    weights = np.maximum(0, 1 - np.abs((np.arange(old)[None] + 0.5 - centres) / scale))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("size", "new"), [((40, 60), (16, 24)), ((50, 31), (26, 16)), ((16, 16), (16, 16))], ids=str)
def test_cdfvd_reads_videos_with_antialiasing_and_cuts_bytes_off(size: tuple[int, int], new: tuple[int, int]) -> None:
    video, frame = frames_of(size)
    read = preprocess.cdfvd_loader(video, 16)
    rows, columns = triangle(size[0], new[0]), triangle(size[1], new[1])
    whole = np.einsum("Hh, Ww, h w c -> H W c", rows, columns, frame)
    top, left = (new[0] - 16) // 2, (new[1] - 16) // 2
    expected = whole[top : top + 16, left : left + 16]
    found = rearrange(read[1, :, 2], "c h w -> h w c").numpy()
    # Cut off, not rounded; where the exact value is a whole number, rounding errors decide.
    low, high = np.floor(expected - 1e-3), np.floor(expected + 1e-3)
    assert ((found >= low) & (found <= high)).all()
    assert (low == high).mean() > 0.9 or size == new
