"""Sampling of clips: which frames of a stored clip to take, and how to scale, crop and flip them.

All random choices are functions of the seed and the sample's position in the order of training.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

import torch
from annotated_types import Len

from vdm import randomness
from vdm.data.shards import MAX_PIXELS, Kind, Shape
from vdm.ranges import Positive, Share, Size

_SIDES = re.compile(r"\b(left|right|(counter|anti)?-?clockwise|mirror(ed|s)?)(-?(hand(ed)?|wards?|most|side))?\b", re.I)
"""Words that are no longer true of a horizontally flipped clip."""
_SAME_RATE = 1.02
"""Quotient up to which two rates count as one: 23.976 and 24, 29.97 and 30 frames a second, but not 24 and 25."""
MAX_SEEN_FRAMES = 1 << 16
MAX_SEEN_BYTES = 1 << 31
"""Greatest size of a sampled clip in bytes: 2,700 frames of 512x512."""
_JOINS = re.compile(r"_|(?<=[a-z])(?=[A-Z])")
"""Boundaries between the words of an identifier."""


@dataclass(frozen=True)
class Cut:
    """The part of a stored clip that is used."""

    frames: tuple[int, ...]
    """Numbers of the frames, in ascending order."""
    scaled: tuple[int, int]
    """Rows and columns to which each frame is scaled."""
    top: int
    """First row of the crop, after scaling."""
    left: int
    """First column of the crop, after scaling."""
    size: tuple[int, int]
    """Rows and columns of the crop."""
    flipped: bool = False
    """Whether the crop is flipped horizontally."""

    @staticmethod
    @lru_cache(maxsize=1024)
    def whole(shape: Shape) -> "Cut":
        """Return the cut that takes a whole clip of ``shape``."""
        t, h, w = shape
        return Cut(tuple(range(t)), (h, w), 0, 0, (h, w))


@dataclass(frozen=True)
class ClipSampling:
    """How stored clips become clips to train on.

    Each stored clip is brought to one of ``shapes``: the one with the nearest aspect ratio; among equals, the longest
    that the clip fills; among equals, the largest that needs no enlargement, or else the smallest. Frames are scaled to
    cover that size and cropped. Clips too short for all shapes are left out.

    With ``fps`` all videos have one frame rate: the frames of a stored clip that are nearest in time are taken. Videos
    with a lower or unknown rate are left out.

    Args:
        shapes: Allowed sizes of clips, as frames, rows and columns; None keeps the stored size.
        frame_stride: Take every ``frame_stride``-th stored frame.
        fps: Frame rate of all clips; None takes every ``frame_stride``-th frame, whatever the rate.
        start: Position of the first frame in a longer clip.
        crop: Position of the crop in a larger frame.
        mirror_fraction: Probability of a horizontal flip. Clips whose captions or classes mention sides are never
            flipped. Use 0 for scenes in which left and right matter, such as writing.
    """

    shapes: Annotated[Sequence[tuple[Size, Size, Size]], Len(1, 1000)] | None = None
    frame_stride: Size = 1
    fps: Positive | None = None
    start: Literal["random", "first", "center"] = "random"
    crop: Literal["random", "center"] = "center"
    mirror_fraction: Share = 0.0

    def __post_init__(self) -> None:
        if self.shapes is not None and (not self.shapes or min(min(shape) for shape in self.shapes) < 1):
            raise ValueError(f"shapes={self.shapes}: must be a list of [frames, rows, columns], all at least 1")
        if self.frame_stride < 1:
            raise ValueError(f"frame_stride={self.frame_stride}: must be at least 1")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps={self.fps}: must be above 0, or null for the rate of each clip")
        if self.fps is not None and self.frame_stride > 1:
            raise ValueError(f"fps={self.fps}: says which frames are seen; with it frame_stride must be 1")
        if not 0 <= self.mirror_fraction <= 1:
            raise ValueError(f"mirror_fraction={self.mirror_fraction}: must lie between 0 and 1")

    @property
    def keeps_clips(self) -> bool:
        """Whether clips are used exactly as they are stored."""
        return self.shapes is None and self.frame_stride == 1 and self.fps is None and self.mirror_fraction == 0

    def without_chance(self) -> "ClipSampling":
        """Return the sampling for validation: the same shapes, cut from the middle, without flips."""
        return replace(self, start="center", crop="center", mirror_fraction=0.0)

    def stride(self, stored: Kind) -> float | None:
        """Return the distance between sampled frames in stored frames; None if the clip's rate is too low."""
        if self.fps is None or stored.shape[0] == 1:
            return self.frame_stride
        if stored.fps is None or stored.fps * _SAME_RATE < self.fps:
            return None
        return stored.fps / self.fps if stored.fps > self.fps * _SAME_RATE else 1.0

    def shape_of(self, stored: Kind) -> Shape | None:
        """Return the shape that a stored clip is brought to.

        None if the clip is too short, its rate is too low, or it would take too much memory, as it is or scaled.
        """
        stride = self.stride(stored)
        if stride is None:
            return None
        num_frames = math.ceil((stored.shape[0] - 0.5) / stride)
        num_frames -= _nearest(num_frames - 1, stride) >= stored.shape[0]  # where the quotient was rounded up
        if self.shapes is None:
            whole = (num_frames, *stored.shape[1:])
            return whole if is_bounded(whole) else None
        fitting = [shape for shape in self.shapes if shape[0] <= num_frames]
        found = min(fitting, key=lambda shape: _badness(shape, stored.shape), default=None)
        return found if found is None or math.prod(_covering(stored.shape, found)) <= MAX_PIXELS else None

    def cut(self, stored: Kind, shape: Shape, caption: str, seed: int, position: int | str) -> Cut:
        """Choose the part of a stored clip for the sample at a position.

        Args:
            stored: Shape and rate of the stored clip.
            shape: ``shape_of(stored)``.
            caption: Its caption, and the name of its class if it has one; these may forbid a flip.
            seed: Seed of the run.
            position: Place of the sample in the order of training.
        """
        if self.keeps_clips:
            return Cut.whole(stored.shape)
        (num_frames, *size), num_stored = shape, stored.shape[0]
        stride = self.stride(stored)
        assert stride is not None, "clips of too low a rate are in no bucket"
        frames = [_nearest(number, stride) for number in range(num_frames)]
        start = self._first(self.start, num_stored - 1 - frames[-1], seed, "clip start", position)
        height, width = _covering(stored.shape, shape)
        top = self._first(self.crop, height - size[0], seed, "crop row", position)
        left = self._first(self.crop, width - size[1], seed, "crop column", position)
        flipped = (
            self.mirror_fraction > 0
            and not speaks_of_sides(caption)
            and float(randomness.uniform(seed, "mirror", [position])) < self.mirror_fraction
        )
        return Cut(tuple(start + frame for frame in frames), (height, width), top, left, (size[0], size[1]), flipped)

    @staticmethod
    def _first(where: str, room: int, seed: int, purpose: str, position: int | str) -> int:
        """Return a number from 0 to ``room``."""
        if where == "first" or room == 0:
            return 0
        if where == "center":
            return room // 2
        return int(torch.randint(room + 1, (), generator=randomness.generator(seed, purpose, position)))


def speaks_of_sides(caption: str) -> bool:
    """Whether a caption, or the name of a class such as ``pushLeft``, would be untrue of the flipped clip."""
    return _SIDES.search(_JOINS.sub(" ", caption)) is not None


def _nearest(number: int, stride: float) -> int:
    """Return the number of the stored frame nearest in time to the ``number``-th sampled frame."""
    return math.floor(number * stride + 0.5)


def _covering(stored: Shape, shape: Shape) -> tuple[int, int]:
    """Return rows and columns of a stored frame after scaling it to cover ``shape``."""
    (rows, columns), (height, width) = stored[1:], shape[1:]
    scale = max(height / rows, width / columns)
    return max(height, round(rows * scale)), max(width, round(columns * scale))


def is_bounded(shape: Shape) -> bool:
    """Whether a whole clip is within the limits of frames, pixels of a frame and bytes."""
    t, h, w = shape
    return t <= MAX_SEEN_FRAMES and h * w <= MAX_PIXELS and 3 * t * h * w <= MAX_SEEN_BYTES


def _badness(shape: Shape, stored: Shape) -> tuple[float, int, bool, int]:
    """Return a sort key that is smallest for the best shape; see ``ClipSampling``."""
    t, h, w = shape
    aspect = round(abs(math.log(w / h) - math.log(stored[2] / stored[1])), 9)
    enlarges = max(h / stored[1], w / stored[2]) > 1
    return aspect, -t, enlarges, h * w if enlarges else -h * w
