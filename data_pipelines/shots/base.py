"""Interface of a shot detector."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol

import numpy as np
from jaxtyping import UInt8


class ShotDetector(Protocol):
    """Finds the shots of a video."""

    size: tuple[int, int]
    """Rows and columns of its input pictures."""

    def shots(self, pictures: Iterable[UInt8[np.ndarray, "h w c"]], fps: float) -> list[range]:
        """Return the range of frame numbers of each shot, in order; frames between two shots are a transition.

        Args:
            pictures: All frames of the video in RGB.
            fps: Frames per second.
        """
        ...


def shots_between(cuts: Iterable[int], num_frames: int) -> list[range]:
    """Return the shots of a video, given the number of the first frame of each shot but the first."""
    edges = sorted({0, num_frames, *(cut for cut in cuts if 0 < cut < num_frames)})
    return [range(first, end) for first, end in pairwise(edges)]
