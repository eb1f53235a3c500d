"""Time shifts: more noise for larger clips, in training and sampling.

In larger clips more pixels show the same content, so that more noise is needed to hide it. The shift
``t' = s t / (1 + (s - 1) t)`` (Esser et al. 2024, eq. 23) leaves 0 and 1 unchanged, and times outside of [0, 1], which
some schedules have. For rectified flow, ``alpha = 1 - t``, it multiplies ``sigma / alpha`` by s. In a run with clips of
several sizes, each clip gets the shift of its size.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import Count, LogRatio, Positive

PatchSize = Annotated[int, Interval(ge=1, le=1000)]
Shape = tuple[int, ...]
"""Channels, frames, rows and columns of a clip's latents."""


class TimeShift(ABC):
    """A shift whose factor ``s`` depends on the size of the clip."""

    @abstractmethod
    def factor(self, shape: Shape) -> float:
        """Return ``s`` for clips with latents of ``shape``; a factor above 1 means more noise."""

    def __call__(self, t: Level, shape: Shape) -> Level:
        """Return the shifted times."""
        return shifted(t, self.factor(shape))


def shifted(t: Level, s: float) -> Level:
    """Return ``s t / (1 + (s - 1) t)``."""
    # The quotient has a pole outside of [0, 1], so times there are not shifted.
    inside = t.clamp(0, 1)
    # In this form rounding never gives a time above 1, where rectified flow has no log-SNR, and t = 1 gives exactly 1.
    return s * inside / (s * inside + (1 - inside)) + (t - inside)


@dataclass(frozen=True)
class ShiftedTimes(NoiseSchedule):
    """A schedule evaluated at shifted times: its values at ``t`` are those of ``schedule`` at ``t'``.

    Args:
        schedule: The schedule without shift.
        factor: s.
    """

    schedule: NoiseSchedule
    factor: Positive

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        return self.schedule.log_snr(shifted(t, self.factor))

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha`` and ``sigma`` of the schedule at this log-SNR."""
        return self.schedule.at_log_snr(log_snr)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value."""
        return shifted(self.schedule.time(log_snr), 1 / self.factor)


@dataclass(frozen=True)
class ConstantShift(TimeShift):
    """The same factor for all sizes.

    Args:
        shift: s; Stable Diffusion 3 uses 3 at 1024x1024.
    """

    shift: Positive = 3.0

    def __post_init__(self) -> None:
        if self.shift <= 0:
            raise ValueError(f"shift must be > 0, but is {self.shift}")

    def factor(self, shape: Shape) -> float:
        """Return ``s``."""
        return self.shift


@dataclass(frozen=True)
class TokenShift(TimeShift):
    """A shift whose factor depends on the number of tokens.

    Args:
        patch: Latent frames, rows and columns of a token of the network.
    """

    patch: tuple[PatchSize, PatchSize, PatchSize] = (1, 2, 2)

    def __post_init__(self) -> None:
        if min(self.patch) < 1:
            raise ValueError(f"patch must be three numbers of at least 1, but is {list(self.patch)}")

    @abstractmethod
    def factor_of_tokens(self, num_tokens: int) -> float:
        """Return ``s``."""

    def factor(self, shape: Shape) -> float:
        """Return ``s``; incomplete tokens at the edges count as whole ones."""
        sizes = zip(shape[1:], self.patch, strict=True)
        return self.factor_of_tokens(math.prod(-(-size // of_token) for size, of_token in sizes))


@dataclass(frozen=True)
class RootShift(TokenShift):
    """``s = base_shift sqrt(num_tokens / base_tokens)`` (Esser et al. 2024, eq. 23).

    Args:
        patch: Latent frames, rows and columns of a token.
        base_tokens: Number of tokens of clips whose factor is ``base_shift``.
        base_shift: Factor of such clips; 1 if the noise levels were tuned for them.
    """

    base_tokens: Count = 256
    base_shift: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base_tokens < 1:
            raise ValueError(f"base_tokens must be at least 1, but is {self.base_tokens}")
        if self.base_shift <= 0:
            raise ValueError(f"base_shift must be > 0, but is {self.base_shift}")

    def factor_of_tokens(self, num_tokens: int) -> float:
        """Return ``s``."""
        return self.base_shift * math.sqrt(num_tokens / self.base_tokens)


@dataclass(frozen=True)
class ExponentialShift(TokenShift):
    """``s = exp(mu)``, where mu grows linearly with the number of tokens.

    The dynamic shift of Flux and of diffusers' ``FlowMatchEulerDiscreteScheduler``, with its defaults.

    Args:
        patch: Latent frames, rows and columns of a token.
        base_tokens: A number of tokens; ``base_image_seq_len`` in diffusers.
        max_tokens: A larger number of tokens, beyond which mu keeps growing; ``max_image_seq_len`` in diffusers.
        base_mu: mu at ``base_tokens``; ``base_shift`` in diffusers.
        max_mu: mu at ``max_tokens``; ``max_shift`` in diffusers.
    """

    base_tokens: Count = 256
    max_tokens: Count = 4096
    base_mu: LogRatio = 0.5
    max_mu: LogRatio = 1.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.base_tokens < self.max_tokens:
            raise ValueError(
                "base_tokens must be at least 1 and below max_tokens, but they are "
                f"{self.base_tokens} and {self.max_tokens}"
            )

    def factor_of_tokens(self, num_tokens: int) -> float:
        """Return ``s``."""
        slope = (self.max_mu - self.base_mu) / (self.max_tokens - self.base_tokens)
        return math.exp(self.base_mu + slope * (num_tokens - self.base_tokens))
