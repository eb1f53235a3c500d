"""Learning-rate schedules, as factors of the optimizer's learning rate."""

import math
from dataclasses import dataclass
from typing import Protocol

from vdm.ranges import Count, CountOrZero, NotNegative


class LRSchedule(Protocol):
    """The factor of the learning rate at each step."""

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``, the number of steps already done."""
        ...


@dataclass(frozen=True)
class WarmupConstant:
    """Linear growth over ``warmup_steps``, then constant."""

    warmup_steps: CountOrZero = 1000

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        return _warmup(step, self.warmup_steps)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear growth over ``warmup_steps``, then half a cosine down to ``final_factor`` at step ``decay_steps``."""

    warmup_steps: CountOrZero = 1000
    decay_steps: Count = 100_000
    final_factor: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.decay_steps < 1:
            raise ValueError(f"decay_steps must be at least 1, but is {self.decay_steps}")

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        progress = min(step / self.decay_steps, 1)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return _warmup(step, self.warmup_steps) * (self.final_factor + (1 - self.final_factor) * cosine)


@dataclass(frozen=True)
class WarmupLinear:
    """Linear growth over ``warmup_steps``, then linear decay to ``final_factor`` at step ``decay_steps``."""

    warmup_steps: CountOrZero = 1000
    decay_steps: Count = 100_000
    final_factor: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.decay_steps < 1:
            raise ValueError(f"decay_steps must be at least 1, but is {self.decay_steps}")

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        progress = min(step / self.decay_steps, 1)
        return _warmup(step, self.warmup_steps) * (1 - (1 - self.final_factor) * progress)


def _warmup(step: int, warmup_steps: int) -> float:
    # The first step already learns: a factor of zero would waste a batch.
    return min((step + 1) / max(warmup_steps, 1), 1.0)
