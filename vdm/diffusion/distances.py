"""How far a prediction is from its target: one number a clip, whatever its size."""

from dataclasses import dataclass
from typing import Protocol

import torch

from vdm.diffusion.shapes import Counted, Latents, PerClip, mean_of_clips
from vdm.ranges import Positive


class Distance(Protocol):
    """A measure of the difference of latents."""

    def __call__(self, prediction: Latents, target: Latents, counted: Counted | None = None) -> PerClip:
        """Return the distance of each clip, over the frames that count, by default over all; without any it is 0."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """The mean of squared differences, for which the best prediction is the mean of all targets possible."""

    def __call__(self, prediction: Latents, target: Latents, counted: Counted | None = None) -> PerClip:
        """Return the distance of each clip."""
        return mean_of_clips((prediction - target).square(), counted)


@dataclass(frozen=True)
class PseudoHuber:
    """``sqrt(mean squared error + c^2) - c``: far-off clips count by their distance, not by its square.

    Song & Dhariwal 2023, section 3.3, ``sqrt(|x - y|^2 + (c sqrt(d))^2) - c sqrt(d)`` over the whole clip, divided by
    ``sqrt(d)``, with which the number of dimensions drops out. Well above c, the best prediction is no longer the mean
    of all targets possible, which samplers take it for, but their geometric median; the two agree where targets lie
    symmetrically. Weights by noise level keep their meaning only well below c.

    Args:
        c: Root mean square error at which squares turn into distances; 0.00054 is theirs for consistency training.
    """

    c: Positive = 0.00054

    def __post_init__(self) -> None:
        if self.c <= 0:
            raise ValueError(f"c must be > 0, but is {self.c}")

    def __call__(self, prediction: Latents, target: Latents, counted: Counted | None = None) -> PerClip:
        """Return the distance of each clip."""
        mean_square = SquaredError()(prediction, target, counted)
        # sqrt(m + c^2) - c, without cancellation where the error is small.
        return mean_square / (torch.sqrt(mean_square + self.c**2) + self.c)
