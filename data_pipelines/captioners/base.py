"""What a captioner is given and what it gives."""

from typing import Protocol

import numpy as np
from jaxtyping import UInt8


class Captioner(Protocol):
    """Says what is to be seen in a clip."""

    short_side: int
    """Pixels of the shorter side of the pictures that it wants to see."""
    name: str
    """How it is called in manifests."""

    def __call__(self, video: UInt8[np.ndarray, "t h w c"]) -> str:
        """Return one line of text; the pictures are RGB and uncropped."""
        ...
