"""Which noise is added to a clip: how it hangs together over frames and pixels.

The same prior draws the noise of training, the noise that sampling starts from, and the fresh noise of its steps.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vdm import randomness
from vdm.ranges import NotNegative


class NoisePrior(ABC):
    """A distribution of noise of mean 0, drawn for each clip from (seed, purpose, position)."""

    @abstractmethod
    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip, in fp32 on the CPU.

        Args:
            seed: Seed of the run.
            purpose: What is drawn; different purposes are independent.
            positions: Place of each clip in the order of training, or its key in validation.
            shape: Channels, frames, rows and columns of a clip's latents.
        """


@dataclass(frozen=True)
class Independent(NoisePrior):
    """Every number is independent and standard normal."""

    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip."""
        return randomness.normal(seed, purpose, positions, shape)


@dataclass(frozen=True)
class Offset(NoisePrior):
    """Independent noise and ``strength`` times one more number for each channel of a clip (Guttenberg 2023).

    The mean brightness of a clip is then noised too, where otherwise it would show through. The variance becomes
    ``1 + strength^2``.

    Args:
        strength: Standard deviation of what a channel's pixels and frames have in common.
    """

    strength: NotNegative = 0.1

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError(f"strength must be >= 0, but is {self.strength}")

    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip."""
        positions = list(positions)
        offset = randomness.normal(seed, f"{purpose} offset", positions, (shape[0], 1, 1, 1))
        return randomness.normal(seed, purpose, positions, shape) + self.strength * offset


@dataclass(frozen=True)
class Mixed(NoisePrior):
    """Each frame's noise is the sum of noise that all frames share and noise of its own.

    The mixed noise model of Ge et al. 2023 (PYoCo): variance ``alpha^2 / (1 + alpha^2)`` is shared, ``1 / (1 +
    alpha^2)`` is not, so that any two frames correlate by the former.

    Args:
        alpha: Shared against own noise, in standard deviations; 0 makes frames independent.
    """

    alpha: NotNegative = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip."""
        positions = list(positions)
        channels, _, height, width = shape
        shared = randomness.normal(seed, f"{purpose} shared", positions, (channels, 1, height, width))
        own = randomness.normal(seed, purpose, positions, shape)
        return (self.alpha * shared + own) / math.sqrt(1 + self.alpha**2)


@dataclass(frozen=True)
class Progressive(NoisePrior):
    """Each frame's noise is made from that of the frame before.

    The progressive noise model of Ge et al. 2023 (PYoCo): ``noise_i = alpha / sqrt(1 + alpha^2) noise_(i-1) + own_i``,
    ``own_i`` of variance ``1 / (1 + alpha^2)``. Frames n apart correlate by ``(alpha / sqrt(1 + alpha^2))^n``.

    Args:
        alpha: Inherited against own noise, in standard deviations; 0 makes frames independent.
    """

    alpha: NotNegative = 2.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip."""
        first, *own = randomness.normal(seed, purpose, positions, shape).unbind(2)
        frames = [first]
        for fresh in own:
            frames.append((self.alpha * frames[-1] + fresh) / math.sqrt(1 + self.alpha**2))
        return torch.stack(frames, dim=2)


def _check_alpha(alpha: float) -> None:
    if alpha < 0:
        raise ValueError(f"alpha must be >= 0, but is {alpha}")
