"""Scores of motion."""

from typing import Annotated

import numpy as np
from annotated_types import Interval
from jaxtyping import Float, UInt8

from data_pipelines.scores.base import SHORT_SIDE, SeenClip
from vdm.extras import needs_extra
from vdm.ranges import Size


class OpticalFlow:
    """Mean length of the optical flow from one frame of the clip to the next, over all pixels and frames.

    The unit is pixels per frame, of pictures whose shorter side has 256 pixels, at the frame rate of the clip. The flow
    is that of Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", accurate to about 0.3 of these
    pixels. For shards without this score, ``vdm.data.motion`` measures the same in another unit.

    Args:
        short_side: Pixels of the shorter side of the pictures that the flow is computed on; fewer are faster.
        max_pairs: Maximum number of pairs of neighbouring frames, evenly spread over the clip.
    """

    def __init__(self, short_side: Annotated[int, Interval(ge=32, le=SHORT_SIDE)] = 128, max_pairs: Size = 8) -> None:
        with needs_extra("curation", "optical flow"):
            import cv2
        self.short_side, self.max_pairs = short_side, max_pairs
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, clip: SeenClip) -> float:
        """Return pixels per frame; 0 for a clip of one frame."""
        num_pairs = min(self.max_pairs, len(clip.gray) - 1)
        if num_pairs < 1:
            return 0.0
        firsts = np.linspace(0, len(clip.gray) - 2, num_pairs).round().astype(int)
        return float(np.mean([self._length(clip.gray[first], clip.gray[first + 1]) for first in firsts]))

    def _length(self, one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"]) -> float:
        import cv2

        scale = self.short_side / min(one.shape)
        size = round(one.shape[1] * scale), round(one.shape[0] * scale)
        small = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (one, other)]
        flow: Float[np.ndarray, "h w 2"] = self._flow.calc(small[0], small[1], None)  # pyright: ignore
        return float(np.hypot(flow[..., 0], flow[..., 1]).mean()) * SHORT_SIDE / self.short_side
