"""Distances of predictions from targets: one number a clip, independent of its size."""

from dataclasses import dataclass
from typing import Protocol

import torch

from vdm.diffusion.shapes import Counted, Latents, PerClip, mean_of_clips
from vdm.ranges import Positive


class Distance(Protocol):
    """Distance between latents."""

    def __call__(self, prediction: Latents, target: Latents, counted: Counted | None = None) -> PerClip:
        """Return the distance of each clip over the frames that count, by default all; 0 if none count."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error; its minimizer is the conditional mean of the target."""

    def __call__(self, prediction: Latents, target: Latents, counted: Counted | None = None) -> PerClip:
        """Return the distance of each clip."""
        return mean_of_clips((prediction - target).square(), counted)


@dataclass(frozen=True)
class PseudoHuber:
    """``sqrt(mean squared error + c^2) - c``: quadratic for small errors, linear for large ones.

    Song & Dhariwal 2023, section 3.3: ``sqrt(|x - y|^2 + (c sqrt(d))^2) - c sqrt(d)`` over the whole clip, here divided
    by ``sqrt(d)`` so that it does not depend on the number of dimensions. For errors well above c the minimizer is the
    geometric median of the targets instead of their mean, which samplers expect; the two agree for symmetric
    distributions. Loss weights by noise level keep their meaning only for errors well below c.

    Args:
        c: Root mean square error between the quadratic and the linear range; the paper uses 0.00054 for consistency
            training.
    """

    c: Positive = 0.00054

    def __post_init__(self) -> None:
        if self.c <= 0:
            raise ValueError(f"c must be > 0, but is {self.c}")

    def __call__(self, prediction: Latents, target: Latents, counted: Counted | None = None) -> PerClip:
        """Return the distance of each clip."""
        mean_square = SquaredError()(prediction, target, counted)
        # Equals sqrt(m + c^2) - c, without cancellation for small errors.
        return mean_square / (torch.sqrt(mean_square + self.c**2) + self.c)
