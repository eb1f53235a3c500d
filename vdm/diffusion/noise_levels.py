"""Distributions of the noise levels in training: of t, drawn for each sample as a function of (seed, position)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Int
from torch import Tensor

from vdm import randomness
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level, PerClip
from vdm.ranges import LogRatio, Positive, ShareBelowOne, Size

LEVEL_OF_CLIP = "noise level"
"""Purpose of the random number for the single level of a clip."""
_NUM_BISECTIONS = 50
"""Until the remaining interval is about as small as the precision of float64."""


@dataclass(frozen=True)
class NoiseLevels(ABC):
    """A distribution over times, given by its quantile function.

    Args:
        low_discrepancy: Spread the samples of one step evenly over the distribution: ``u = frac(u(step) + slot / G)``.
            Each sample has the same distribution, but the loss of a step varies less (Kingma et al. 2021, appendix
            I.1). Otherwise samples are independent.
    """

    low_discrepancy: bool = True

    @abstractmethod
    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return the quantile: the time below which a fraction ``u`` of all samples lies."""

    def __call__(
        self,
        seed: int,
        positions: Int[Tensor, " b"],
        global_batch_size: int,
        schedule: NoiseSchedule,
        purpose: str = LEVEL_OF_CLIP,
        part: tuple[float, float] = (0, 1),
    ) -> PerClip:
        """Draw a time for each position.

        Args:
            seed: Seed of the run.
            positions: Position of each clip in the order of training.
            global_batch_size: Number of samples in one optimizer step.
            schedule: Signal and noise at each time.
            purpose: Purpose of the times; times of different purposes are independent.
            part: Draw between these quantiles of the distribution, whose density there keeps its shape.
        """
        low, high = part
        u = low + (high - low) * self._uniform(seed, positions, global_batch_size, purpose)
        return self.quantile(u.clamp(max=1 - 2**-24), schedule)  # rounding may have given 1

    def share_below(self, t: float, schedule: NoiseSchedule) -> float:
        """Return the probability of a time below ``t``: the inverse of the quantile function, by bisection."""
        low, high = 0.0, 1.0
        for _ in range(_NUM_BISECTIONS):
            middle = (low + high) / 2
            is_below = self.quantile(torch.tensor([middle], dtype=torch.float64, device="cpu"), schedule) < t
            low, high = (middle, high) if bool(is_below) else (low, middle)
        return low if low == 0 else high

    def _uniform(self, seed: int, positions: Int[Tensor, " b"], global_batch_size: int, purpose: str) -> PerClip:
        if not self.low_discrepancy:
            return randomness.uniform(seed, purpose, map(int, positions))
        steps, slots = positions // global_batch_size, positions % global_batch_size
        if purpose != LEVEL_OF_CLIP:
            # With the same slots for each frame, the differences between frames would be equal in all clips of a step.
            slots = _permuted(seed, purpose, steps, slots, global_batch_size)
        return torch.frac(randomness.uniform(seed, purpose, map(int, steps)) + slots.cpu() / global_batch_size)


def _permuted(
    seed: int, purpose: str, steps: Int[Tensor, " b"], slots: Int[Tensor, " b"], global_batch_size: int
) -> Int[Tensor, " b"]:
    """Return the slots after a random permutation of those of each step, a function of (seed, purpose, step)."""

    def order(step: int) -> list[int]:
        return randomness.permutation(seed, f"slots of {purpose}", step, global_batch_size)

    places = [(int(step), int(slot)) for step, slot in zip(steps, slots, strict=True)]
    orders = {step: order(step) for step in {step for step, _ in places}}
    return torch.tensor([orders[step][slot] for step, slot in places])


def _normal_quantile(u: Level) -> Level:
    """Return the quantile of the standard normal distribution; finite at u = 0, which has probability 2^-24."""
    return math.sqrt(2) * torch.erfinv(2 * u.clamp(2**-24, 1 - 2**-24) - 1)


@dataclass(frozen=True)
class Uniform(NoiseLevels):
    """All times are equally likely.

    Args:
        low_discrepancy: See ``NoiseLevels``.
        t_min: Smallest time. Song et al. 2021 (appendix C) use 1e-5 to avoid infinite values at 0.
    """

    t_min: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < 1:
            raise ValueError(f"t_min must lie in [0, 1), but is {self.t_min}")

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return ``t_min + (1 - t_min) u``."""
        return self.t_min + (1 - self.t_min) * u


@dataclass(frozen=True)
class DiscreteUniform(NoiseLevels):
    """All timesteps ``t = k / T``, with k from 1 to T, are equally likely (Ho et al. 2020, algorithm 1).

    Args:
        low_discrepancy: See ``NoiseLevels``.
        num_timesteps: T; must be that of the schedule if it has a table of betas.
    """

    num_timesteps: Size = 1000

    def __post_init__(self) -> None:
        if self.num_timesteps < 1:
            raise ValueError(f"num_timesteps must be at least 1, but is {self.num_timesteps}")

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return ``(floor(u T) + 1) / T``."""
        # In fp32, u T may round up to T.
        return ((u * self.num_timesteps).floor() + 1).clamp(max=self.num_timesteps) / self.num_timesteps


@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """``log(sigma / alpha)`` is normal (Karras et al. 2022, table 1), whatever the schedule.

    Noise levels beyond the schedule's ends are clipped to them, unless the schedule extends beyond [0, 1], as
    ``VarianceExploding`` does.

    Args:
        low_discrepancy: See ``NoiseLevels``.
        p_mean: Mean of the logarithm; -1.2 is EDM's, for pixels of standard deviation 0.5.
        p_std: Standard deviation of the logarithm.
    """

    p_mean: LogRatio = -1.2
    p_std: Positive = 1.2

    def __post_init__(self) -> None:
        if self.p_std <= 0:
            raise ValueError(f"p_std must be > 0, but is {self.p_std}")

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return the time at which the schedule has the quantile of the noise level."""
        return schedule.time(-2 * (self.p_mean + self.p_std * _normal_quantile(u)))


@dataclass(frozen=True)
class LogitNormal(NoiseLevels):
    """``log(t / (1 - t))`` is normal (Esser et al. 2024, eq. 19).

    Args:
        low_discrepancy: See ``NoiseLevels``.
        mean: Mean of the logit; above 0 favours high noise levels.
        std: Standard deviation of the logit.
    """

    mean: LogRatio = 0.0
    std: Positive = 1.0

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise ValueError(f"std must be > 0, but is {self.std}")

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return the sigmoid of the logit's quantile."""
        return torch.sigmoid(self.mean + self.std * _normal_quantile(u))


_MAX_SCALE = 2 / (math.pi - 2)
"""Largest scale of ``Mode`` for which the quantile function is monotonic."""


@dataclass(frozen=True)
class Mode(NoiseLevels):
    """Mode sampling with heavy tails: ``t = 1 - u - s (cos^2(pi u / 2) - 1 + u)``.

    Esser et al. 2024, eq. 20, here with ``1 - u`` in place of u, so that t increases with u.

    Args:
        low_discrepancy: See ``NoiseLevels``.
        scale: s; above 0 favours times in the middle, below 0 the ends; 0 is uniform.
    """

    scale: Annotated[float, Interval(ge=-1, le=_MAX_SCALE)] = 1.29

    def __post_init__(self) -> None:
        if not -1 <= self.scale <= _MAX_SCALE:
            raise ValueError(f"scale must lie in [-1, {_MAX_SCALE:.4f}], but is {self.scale}")

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return ``u - s (sin^2(pi u / 2) - u)``."""
        return u - self.scale * (torch.sin(math.pi / 2 * u) ** 2 - u)


@dataclass(frozen=True)
class CosineMap(NoiseLevels):
    """``t = 1 - 1 / (tan(pi u / 2) + 1)`` (Esser et al. 2024, eq. 21).

    With the schedule of rectified flow, these are the noise levels of the cosine schedule at uniform times.
    """

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return ``sin / (sin + cos)``, an equal form without infinite values."""
        sin, cos = torch.sin(math.pi / 2 * u), torch.cos(math.pi / 2 * u)
        return sin / (sin + cos)


@dataclass(frozen=True)
class Bell(NoiseLevels):
    """The beta distribution ``Beta(2, 2)``, with density ``6 t (1 - t)``: a bell over all times."""

    def quantile(self, u: Level, schedule: NoiseSchedule) -> Level:
        """Return the root in [0, 1] of ``3 t^2 - 2 t^3 = u``."""
        return 0.5 - torch.sin(torch.asin(1 - 2 * u) / 3)
