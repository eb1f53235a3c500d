"""Noise priors: the distribution of the noise of a clip, which may be correlated over frames or pixels.

The same prior draws the noise of training, the initial noise of sampling, and the fresh noise of its steps.
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
    """A distribution of noise with mean 0, drawn for each clip as a function of (seed, purpose, position)."""

    @abstractmethod
    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip, in fp32 on the CPU.

        Args:
            seed: Seed of the run.
            purpose: Purpose of the noise; noise of different purposes is independent.
            positions: Position of each clip in the order of training, or its key in validation.
            shape: Channels, frames, rows and columns of a clip's latents.
        """


@dataclass(frozen=True)
class Independent(NoisePrior):
    """Independent standard normal noise."""

    def __call__(
        self, seed: int, purpose: str, positions: Iterable[int | str], shape: tuple[int, ...]
    ) -> Float[Tensor, "b *shape"]:
        """Draw the noise of each clip."""
        return randomness.normal(seed, purpose, positions, shape)


@dataclass(frozen=True)
class Offset(NoisePrior):
    """Offset noise (Guttenberg 2023): independent noise, plus a random constant for each channel of a clip.

    Independent noise averages out over a clip and hardly hides its mean brightness; the constant hides it. The
    variance is ``1 + strength^2``.

    Args:
        strength: Standard deviation of the constant.
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
    """The noise of each frame is the sum of noise shared by all frames and independent noise.

    The mixed noise model of Ge et al. 2023 (PYoCo): the shared noise has variance ``alpha^2 / (1 + alpha^2)``, which is
    the correlation of any two frames, and the independent noise ``1 / (1 + alpha^2)``.

    Args:
        alpha: Ratio of the standard deviations of shared and independent noise; 0 makes frames independent.
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
    """The noise of the frames is an autoregressive process.

    The progressive noise model of Ge et al. 2023 (PYoCo): ``noise_i = alpha / sqrt(1 + alpha^2) noise_(i-1) + own_i``,
    where ``own_i`` has variance ``1 / (1 + alpha^2)``. The correlation of frames at distance n is
    ``(alpha / sqrt(1 + alpha^2))^n``.

    Args:
        alpha: Ratio of the standard deviations of inherited and independent noise; 0 makes frames independent.
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
