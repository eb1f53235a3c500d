"""What a shot detector is given and what it gives."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Protocol

import numpy as np
from jaxtyping import UInt8


class ShotDetector(Protocol):
    """Finds the shots of a video."""

    size: tuple[int, int]
    """Rows and columns of the pictures that it wants to see."""

    def shots(self, pictures: Iterable[UInt8[np.ndarray, "h w c"]], fps: float) -> list[range]:
        """Return the numbers of the frames of each shot, in order; what lies between two shots is a transition.

        Args:
            pictures: All frames of the video in RGB.
            fps: Frames per second.
        """
        ...


def shots_between(cuts: Iterable[int], num_frames: int) -> list[range]:
    """Return the shots that ``cuts`` divide a video into: the number of each shot's first frame, the first's apart."""
    edges = sorted({0, num_frames, *(cut for cut in cuts if 0 < cut < num_frames)})
    return [range(first, end) for first, end in pairwise(edges)]
