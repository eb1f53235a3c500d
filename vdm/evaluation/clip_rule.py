"""Which frames of a video a metric looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
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
        fps: Frames per second; the frames nearest in time are taken, by their time stamps where the rate varies. None
            takes consecutive frames at any rate.
        start: Whether the first of them is the video's first frame, or they are its middle.
    """

    num_frames: Size
    fps: Positive | None = None
    start: Literal["first", "center"] = "first"

    @property
    def seconds(self) -> float:
        """From the first frame to the last; 0 for consecutive frames at any rate."""
        return 0.0 if self.fps is None else (self.num_frames - 1) / self.fps

    def frames(self, num_stored: int, stored_fps: float | None, times: Sequence[float] | None = None) -> list[int]:
        """Return the numbers of a video's frames that are looked at.

        Args:
            num_stored: How many frames the video has.
            stored_fps: Its frames per second; None if unknown.
            times: Seconds at which its frames are shown, ascending; None if unknown.

        Raises:
            TooShortError: If there are too few, or too few in a second.
        """
        if self.fps is not None and times is not None and _varies(times, stored_fps):
            return self._nearest(times, self.fps)
        stride = self._stride(stored_fps)
        numbers = [int(number * stride + 0.5) for number in range(self.num_frames)]
        if numbers[-1] >= num_stored:
            rate = "" if self.fps is None else f" at {self.fps:g} frames per second"
            raise TooShortError(f"has {num_stored} frames; {self.num_frames}{rate} take {numbers[-1] + 1}")
        first = 0 if self.start == "first" else (num_stored - 1 - numbers[-1]) // 2
        return [first + number for number in numbers]

    def cut(
        self, video: UInt8[Tensor, "c t h w"], fps: float | None, times: Sequence[float] | None = None
    ) -> UInt8[Tensor, "c t2 h w"]:
        """Return the frames that are looked at; arguments and errors are those of ``frames``."""
        return video[:, self.frames(video.shape[1], fps, times)]

    def _nearest(self, times: Sequence[float], fps: float) -> list[int]:
        """Return the frames nearest to every 1 / ``fps`` seconds; of two equally near, the later."""
        length = times[-1] - times[0]
        mean_rate = (len(times) - 1) / length
        self._check_rate(mean_rate, fps)
        if length + 0.5 / mean_rate < self.seconds:
            raise TooShortError(
                f"shows its last frame after {length:.3g} s; {self.num_frames} at {fps:g} frames per second take "
                f"{self.seconds:.3g} s"
            )
        begin = times[0] + (max(0.0, length - self.seconds) / 2 if self.start == "center" else 0.0)
        wanted = begin + np.arange(self.num_frames) / fps
        later = np.searchsorted(times, wanted).clip(1, len(times) - 1)
        given = np.asarray(times)
        return np.where(given[later] - wanted <= wanted - given[later - 1], later, later - 1).tolist()

    def _stride(self, stored_fps: float | None) -> float:
        if self.fps is None:
            return 1.0
        if stored_fps is None:
            raise TooShortError(f"does not say its frames per second, of which {self.fps:g} are looked at")
        self._check_rate(stored_fps, self.fps)
        return stored_fps / self.fps if stored_fps > self.fps * _SAME_RATE else 1.0

    @staticmethod
    def _check_rate(stored_fps: float, fps: float) -> None:
        if stored_fps * _SAME_RATE < fps:
            raise TooShortError(f"has {stored_fps:g} frames per second; {fps:g} are looked at")


def _varies(times: Sequence[float], fps: float | None) -> bool:
    """Tell whether frames are shown at other times, by half a frame, than a constant rate would show them."""
    if len(times) < 2 or times[-1] <= times[0]:
        return False
    return fps is None or any(abs(time - times[0] - number / fps) > 0.5 / fps for number, time in enumerate(times))
