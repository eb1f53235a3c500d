"""The motion of a clip, a condition of image-to-video models.

Motion is the mean length of the optical flow, in shorter sides of the frame per second: at 0.1, pixels move by a tenth
of that side in a second. Half of some 30 videos of people and places lie between 0.01 and 0.026 at 7 frames per second;
a moving camera gives 0.5.
"""

import importlib.util
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

PIXELS_PER_FRAME = "motion_pixels_per_frame"
"""Key in a sample's ``.json``, or among its ``scores``, of the mean flow of the whole stored clip from one frame to the
next, in pixels of pictures whose shorter side has 256: as curation measures it."""

_STORED_SHORTER_SIDE = 256
"""Pixels of the shorter side to which ``PIXELS_PER_FRAME`` refers."""
_MEASURED_SHORTER_SIDE = 128
"""Pixels of the shorter side at which ``motion_of`` computes the flow; larger frames are scaled down."""


def check_measurable() -> None:
    """Refuse to measure motion without OpenCV.

    Raises:
        ValueError: If it is not installed.
    """
    if importlib.util.find_spec("cv2") is None:
        raise ValueError("motion is measured with opencv-python-headless; install the extra 'pretrained'")


def stored_motion(metadata: Mapping[str, Any], fps: float) -> float | None:
    """Return the motion of a whole clip, in shorter sides per second, if its shard has it; otherwise None.

    Args:
        metadata: The sample's ``.json``, which may be anybody's.
        fps: Frames per second of the stored clip.

    Raises:
        ValueError: If it is a text that is no number, below 0 or not finite.
        TypeError: If it is a list or a mapping.
        OverflowError: If it is a whole number beyond floating point.
    """
    scores = metadata.get("scores")
    beside = (
        scores.get(PIXELS_PER_FRAME) if isinstance(scores, Mapping) else None
    )  # elsewhere the key may have another meaning
    pixels = metadata.get(PIXELS_PER_FRAME, beside)
    if pixels is None:
        return None
    if not 0 <= float(pixels) < math.inf:
        raise ValueError(f"{PIXELS_PER_FRAME}={pixels}: must be a finite number, at least 0")
    return float(pixels) / _STORED_SHORTER_SIDE * fps


def motion_of(video: UInt8[Tensor, "c t h w"], fps: float) -> float:
    """Return the mean length of the optical flow between successive frames; 0 for a single frame.

    In shorter sides of the frame per second, as above; the flow is that of dense inverse search (Kroeger et al. 2016).

    Args:
        video: RGB frames, on the CPU.
        fps: Frames per second.
    """
    import cv2  # heavy, and needed by image-to-video models alone

    _, num_frames, height, width = video.shape
    if num_frames < 2:
        return 0.0
    scale = min(1.0, _MEASURED_SHORTER_SIDE / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for frame in np.ascontiguousarray(video.permute(1, 2, 3, 0).numpy())
    ]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)  # pyright: ignore[reportAttributeAccessIssue]
    lengths = [np.linalg.norm(flow.calc(before, after, None), axis=-1).mean() for before, after in pairwise(grey)]
    return float(np.mean(lengths)) / min(size) * fps
