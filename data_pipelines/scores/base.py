"""Interface of a score."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

SHORT_SIDE = 256
"""Pixels of the shorter side of measured pictures, so that scores don't depend on the size of a video."""


@dataclass(frozen=True)
class SeenClip:
    """The frames of a clip in RGB, not cropped, with a shorter side of ``SHORT_SIDE`` pixels."""

    frames: UInt8[np.ndarray, "t h w c"]

    @cached_property
    def gray(self) -> UInt8[np.ndarray, "t h w"]:
        """Luma of the frames by BT.601."""
        import cv2

        return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames])


class Score(Protocol):
    """Measures one property of a clip."""

    def __call__(self, clip: SeenClip) -> float:
        """Return the score, a finite number."""
        ...
