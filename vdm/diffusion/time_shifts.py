"""More noise for clips of more tokens: times of training shifted by the size of a clip.

The more pixels and frames show the same thing, the more noise it takes to hide it. ``t' = s t / (1 + (s - 1) t)``
(Esser et al. 2024, eq. 23) keeps 0 and 1 where they are; times beyond them, which some schedules have, stay too. On
straight paths, ``alpha = 1 - t``, it multiplies ``sigma / alpha`` by s. Clips of several sizes in one run each get the
shift of their own size, and samplers walk through the same times.
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
    """A factor ``s`` for clips of each size."""

    @abstractmethod
    def factor(self, shape: Shape) -> float:
        """Return ``s`` for clips with latents of ``shape``; above 1 means more noise."""

    def __call__(self, t: Level, shape: Shape) -> Level:
        """Return the shifted times."""
        return _shifted(t, self.factor(shape))


def _shifted(t: Level, s: float) -> Level:
    # Beyond 0 and 1, where some schedules go on, the quotient has a pole: such times stay as they are.
    inside = t.clamp(0, 1)
    # Rounded sums are no smaller than their parts: this is 1 at t = 1, and never above, where straight paths have no
    # log-SNR.
    return s * inside / (s * inside + (1 - inside)) + (t - inside)


@dataclass(frozen=True)
class ShiftedTimes(NoiseSchedule):
    """A schedule that is at time ``t`` where another one is at the shifted time ``t'``.

    Args:
        schedule: The other schedule.
        factor: s.
    """

    schedule: NoiseSchedule
    factor: Positive

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        return self.schedule.log_snr(_shifted(t, self.factor))

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha`` and ``sigma`` in the schedule's own family."""
        return self.schedule.at_log_snr(log_snr)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR is this."""
        return _shifted(self.schedule.time(log_snr), 1 / self.factor)


@dataclass(frozen=True)
class ConstantShift(TimeShift):
    """The same factor whatever the size.

    Args:
        shift: s; 3 is that of Stable Diffusion 3 at 1024x1024.
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
    """A factor for each number of tokens.

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
        """Return ``s``; what is left over beside whole tokens counts as one more."""
        sizes = zip(shape[1:], self.patch, strict=True)
        return self.factor_of_tokens(math.prod(-(-size // of_token) for size, of_token in sizes))


@dataclass(frozen=True)
class RootShift(TokenShift):
    """``s = base_shift sqrt(num_tokens / base_tokens)`` (Esser et al. 2024, eq. 23).

    Args:
        patch: Latent frames, rows and columns of a token.
        base_tokens: Tokens of a clip whose factor is ``base_shift``.
        base_shift: Factor of such clips; 1 if noise levels were chosen for them.
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

    The dynamic shift of Flux and of diffusers' ``FlowMatchEulerDiscreteScheduler``, whose names and defaults these are.

    Args:
        patch: Latent frames, rows and columns of a token.
        base_tokens: A number of tokens, ``base_image_seq_len``.
        max_tokens: A larger number of tokens, ``max_image_seq_len``; beyond it mu goes on growing.
        base_mu: mu at ``base_tokens``, ``base_shift``.
        max_mu: mu at ``max_tokens``, ``max_shift``.
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
