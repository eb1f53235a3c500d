"""Interface of a captioner."""

from typing import Protocol

import numpy as np
from jaxtyping import UInt8


class Captioner(Protocol):
    """Describes a clip in words."""

    short_side: int
    """Pixels of the shorter side of its input pictures."""
    name: str
    """Its name in manifests."""

    def __call__(self, video: UInt8[np.ndarray, "t h w c"]) -> str:
        """Return a caption; the pictures are in RGB and not cropped."""
        ...
