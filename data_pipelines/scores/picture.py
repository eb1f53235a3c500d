"""Scores of single pictures: sharpness, black frames, black bars."""

import numpy as np

from data_pipelines.scores.base import SeenClip
from vdm.extras import needs_extra
from vdm.ranges import Share

_DARK = 24
"""Luma up to which a pixel counts as black: 16 is black in studio range, and compression adds noise."""


class Sharpness:
    """Variance of the Laplacian, in squared gray levels, the median over the clip's frames (Pech-Pacheco et al. 2000).

    Blurred pictures have less than about 50, sharp ones hundreds; flat ones, such as a clear sky, have little too.
    """

    def __init__(self) -> None:
        with needs_extra("curation", "sharpness"):
            import cv2  # noqa: F401

    def __call__(self, clip: SeenClip) -> float:
        """Return the variance."""
        import cv2

        return float(np.median([cv2.Laplacian(picture, cv2.CV_64F).var() for picture in clip.gray]))


class BlackFraction:
    """Fraction of the clip's frames that are black, except for few brighter pixels.

    Args:
        bright_share: Fraction of the pixels that may be brighter, such as a logo or noise.
    """

    def __init__(self, bright_share: Share = 0.02) -> None:
        self.bright_share = bright_share

    def __call__(self, clip: SeenClip) -> float:
        """Return 0 to 1."""
        return float(((clip.gray > _DARK).mean((1, 2)) <= self.bright_share).mean())


class BarFraction:
    """Fraction of the picture that black bars cover, above and below (letterbox) or at the sides (pillarbox).

    A row or column belongs to a bar if it is black in all frames, and so are all between it and the edge. A clip that
    is black throughout has no bars.
    """

    def __call__(self, clip: SeenClip) -> float:
        """Return 0 to 1."""
        # Use the 98th percentile of a line: the edges of compressed bars bleed, and some pixels may be noise.
        brightest = clip.gray.max(0)
        rows = np.percentile(brightest, 98, axis=1) > _DARK
        columns = np.percentile(brightest, 98, axis=0) > _DARK
        if not rows.any() or not columns.any():
            return 0.0
        inside = (_extent(rows) / len(rows)) * (_extent(columns) / len(columns))
        return float(1 - inside)


def _extent(lit: np.ndarray) -> int:
    """Return the number of lines from the first lit line to the last."""
    places = np.flatnonzero(lit)
    return int(places[-1] - places[0] + 1)
