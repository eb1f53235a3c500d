"""Which frames of a video a metric looks at."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from vdm.ranges import Positive, Size

_SAME_RATE = 1.02
"""Quotient up to which two rates count as one: 29.97 and 30 frames a second."""


class TooShortError(ValueError):
    """A video has fewer frames than a protocol looks at, or fewer in a second."""


@dataclass(frozen=True)
class ClipRule:
    """Which frames of each video are looked at.

    Args:
        num_frames: How many.
        fps: Frames per second; the frames nearest in time are taken. None takes consecutive frames at any rate.
        start: Whether the first of them is the video's first frame, or they are its middle.
    """

    num_frames: Size
    fps: Positive | None = None
    start: Literal["first", "center"] = "first"

    def frames(self, num_stored: int, stored_fps: float | None) -> list[int]:
        """Return the numbers of a video's frames that are looked at.

        Args:
            num_stored: How many frames the video has.
            stored_fps: Its frames per second; None if unknown.

        Raises:
            TooShortError: If there are too few, or too few in a second.
        """
        stride = self._stride(stored_fps)
        numbers = [int(number * stride + 0.5) for number in range(self.num_frames)]
        if numbers[-1] >= num_stored:
            rate = "" if self.fps is None else f" at {self.fps:g} frames per second"
            raise TooShortError(f"has {num_stored} frames; {self.num_frames}{rate} take {numbers[-1] + 1}")
        first = 0 if self.start == "first" else (num_stored - 1 - numbers[-1]) // 2
        return [first + number for number in numbers]

    def cut(self, video: UInt8[Tensor, "c t h w"], fps: float | None) -> UInt8[Tensor, "c t2 h w"]:
        """Return the frames that are looked at.

        Raises:
            TooShortError: See ``frames``.
        """
        return video[:, self.frames(video.shape[1], fps)]

    def _stride(self, stored_fps: float | None) -> float:
        if self.fps is None:
            return 1.0
        if stored_fps is None:
            raise TooShortError(f"does not say its frames per second, of which {self.fps:g} are looked at")
        if stored_fps * _SAME_RATE < self.fps:
            raise TooShortError(f"has {stored_fps:g} frames per second; {self.fps:g} are looked at")
        return stored_fps / self.fps if stored_fps > self.fps * _SAME_RATE else 1.0
