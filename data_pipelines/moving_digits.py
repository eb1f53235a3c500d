"""The embedded data set: real handwritten digits that move over the frame and bounce off its edges.

The digits are scikit-learn's (``load_digits``, 1,797 pictures of 8x8 pixels written by 43 people), scaled smoothly to
half the frame. Each clip moves one of them at constant speed in one of eight directions, which its caption names.

Along each axis that moves, a digit covers 60% to 100% of the free way during the clip and starts where the first three
quarters of its path or more lie before the edge. Measured over the default set: of the 7 steps between frames, at least
5 and on average 6.5 go the way that the caption says; the net shift along each axis is at least 50% and on average 86%
of the path; a little over half of the motions bounce.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from sklearn.datasets import load_digits

from data_pipelines.settings import BuildSettings, ClipSettings
from data_pipelines.sources import Clip, Inputs, clip_key
from vdm.randomness import generator, permutation

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

DIRECTIONS = {
    (-1, 0): "to the left",
    (1, 0): "to the right",
    (0, -1): "up",
    (0, 1): "down",
    (-1, -1): "up and to the left",
    (1, -1): "up and to the right",
    (-1, 1): "down and to the left",
    (1, 1): "down and to the right",
}
"""Direction as (columns to the right, rows down), and its words in a caption."""

SHARE_OF_FRAME = 0.5
"""Side of the digit's square over the shorter side of the frame."""
PATH = (0.6, 1.0)
"""Shortest and longest path along an axis, as fractions of the free way."""
STRAIGHT = 0.75
"""Minimum fraction of the path that lies before the edge."""


@dataclass(frozen=True)
class Motion:
    """Motion of one clip; all fields but the direction are random numbers in [0, 1)."""

    direction: tuple[int, int]
    speed: float
    start_x: float
    start_y: float


@dataclass(frozen=True)
class Handwriting:
    """One handwritten digit as a source of clips."""

    number: int
    """Its index in ``load_digits``."""
    digit: int
    pixels: tuple[tuple[float, ...], ...]
    """8 rows of 8, from 0 (paper) to 1 (ink)."""
    motions: tuple[Motion, ...]
    settings: ClipSettings

    @property
    def name(self) -> str:
        """See ``Source.name``."""
        return f"moving_digits/{LABELS[self.digit]}-{self.number:04d}"

    @property
    def fingerprint(self) -> str:
        """Constant, since the clips depend on the settings alone."""
        return "scikit-learn"

    def clips(self) -> Iterator[Clip]:
        """Yield a clip for each motion."""
        for number, motion in enumerate(self.motions):
            metadata = {
                "caption": f"the digit {LABELS[self.digit]} moves {DIRECTIONS[motion.direction]}",
                "label": self.digit,
                "direction": motion.direction,
                "handwriting": self.number,
                "source": self.name,
                "source_start_seconds": 0.0,
                "source_height": 8,
                "source_width": 8,
                "source_fps": self.settings.fps,
            }
            video = render(np.array(self.pixels), motion, self.settings)
            yield Clip(clip_key(self.name, number), video, metadata)


def read_moving_digits(settings: BuildSettings) -> Inputs[Handwriting]:
    """List all handwritings with motions drawn from ``settings.seed``."""
    pictures, digits = load_digits(return_X_y=True)
    clip, num_clips = settings.resolved_clip(), settings.moving_digits.clips_per_handwriting
    sources = tuple(
        Handwriting(
            number=number,
            digit=int(digit),
            pixels=tuple(map(tuple, (picture.reshape(8, 8) / 16).tolist())),
            motions=tuple(draw_motions(settings.seed, number, num_clips)),
            settings=clip,
        )
        for number, (picture, digit) in enumerate(zip(pictures, digits, strict=True))
    )
    return Inputs(sources=sources, labels=LABELS)


def draw_motions(seed: int, handwriting: int, num_clips: int) -> Iterator[Motion]:
    """Draw the motions of one handwriting, in different directions as long as there are any left."""
    directions = list(DIRECTIONS)
    for clip in range(num_clips):
        turn, place = divmod(clip, len(directions))
        order = permutation(seed, "digit direction", f"{handwriting}-{turn}", len(directions))
        numbers = torch.rand(3, generator=generator(seed, "digit motion", f"{handwriting}-{clip}"))
        yield Motion(directions[order[place]], *numbers.tolist())


def render(pixels: Float[np.ndarray, "8 8"], motion: Motion, settings: ClipSettings) -> UInt8[np.ndarray, "t h w c"]:
    """Draw a clip, white on black, with sub-pixel positions."""
    side = round(SHARE_OF_FRAME * min(settings.height, settings.width))
    x, y = positions(motion, settings, side)
    rows, columns = _placed(settings.height, y, side), _placed(settings.width, x, side)
    video = (rows @ pixels @ columns.swapaxes(1, 2)).clip(0, 1)
    return np.repeat(np.round(video * 255).astype(np.uint8)[..., None], 3, axis=-1)


def positions(
    motion: Motion, settings: ClipSettings, side: int
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Return column and row of the upper left corner of the digit's square in every frame."""
    ways = settings.width - side, settings.height - side
    length = PATH[0] + (PATH[1] - PATH[0]) * motion.speed
    path = length * min(way for way, step in zip(ways, motion.direction, strict=True) if step)
    share = np.arange(settings.num_frames) / max(1, settings.num_frames - 1)
    starts = motion.start_x, motion.start_y
    x, y = (
        _bounce(_start(way, step, path, start) + step * path * share, way)
        for way, step, start in zip(ways, motion.direction, starts, strict=True)
    )
    return x, y


def _start(way: float, step: int, path: float, number: float) -> float:
    """Place of the digit in the first frame, by a random number in [0, 1)."""
    if step == 0:
        return way * number
    start = (way - STRAIGHT * path) * number
    return start if step > 0 else way - start


def _bounce(x: Float[np.ndarray, " t"], way: float) -> Float[np.ndarray, " t"]:
    """Reflect positions at 0 and ``way``."""
    return way - np.abs(np.mod(x, 2 * way) - way)


def _placed(length: int, offset: Float[np.ndarray, " t"], side: int) -> Float[np.ndarray, "t length 8"]:
    """Weigh the 8 source pixels for each of ``length`` target pixels by the cubic kernel of Keys 1981, a = -1/2."""
    centres = (np.arange(length) + 0.5 - offset[:, None]) * 8 / side - 0.5
    d = np.abs(centres[..., None] - np.arange(8))
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))
