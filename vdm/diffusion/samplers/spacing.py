"""Spacing of the times at which a sampler evaluates the model."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from annotated_types import Interval

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.diffusion.time_shifts import shifted
from vdm.ranges import Between0And1, Positive, ShareBelowOne

_FIRST_TIME = 1e-3
"""First of DDPM's 1000 timesteps; also the last time of the samplers of Song et al. 2021."""


_LARGEST_LOGIT = math.log(1e6 - 1)
"""Of the noise level at which diffusers starts, ``sigma = 1 - 1e-6``: ``log(sigma / (1 - sigma))``."""


class Spacing(Protocol):
    """Chooses the times of a grid."""

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        """Return ``num_steps`` decreasing times in float64, all with noise."""
        ...


@dataclass(frozen=True)
class Trailing:
    """Uniform in time from ``t = 1`` to ``1 / num_steps`` (Lin et al. 2023, section 3.3 and table 2).

    With tables of betas, times are not rounded to timesteps.
    """

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        """Return the times."""
        return torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)[:-1]


@dataclass(frozen=True)
class Leading:
    """Uniform in time with distance ``1 / num_steps``, ending at ``t_min`` (Lin et al. 2023, table 2).

    Args:
        t_min: The last time. In a table of 1000 timesteps, 0.001 is the first timestep, and 0.002 the second:
            ``steps_offset=1`` in diffusers.
    """

    t_min: Between0And1 = _FIRST_TIME

    def __post_init__(self) -> None:
        _check_t_min(self.t_min)

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        """Return the times."""
        if self.t_min * num_steps > 1:
            raise ValueError(f"t_min must be at most 1 / num_steps = {1 / num_steps:g}, but is {self.t_min}")
        return torch.arange(num_steps - 1, -1, -1, dtype=torch.float64) / num_steps + self.t_min


@dataclass(frozen=True)
class Linspace:
    """Uniform in time from ``t = 1`` to ``t_min``, including both (Lin et al. 2023, table 2; Song et al. 2021).

    Args:
        t_min: The last time.
    """

    t_min: Between0And1 = _FIRST_TIME

    def __post_init__(self) -> None:
        _check_t_min(self.t_min)

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        """Return the times."""
        return torch.linspace(1, self.t_min, num_steps, dtype=torch.float64)


@dataclass(frozen=True)
class FlowSteps:
    """Uniform in time from ``t_max`` to ``t_min``, without the latter, as in the solvers of Wan and of diffusers.

    diffusers calls it ``use_flow_sigmas``: ``UniPCMultistepScheduler`` goes from 1 to 0.001 and
    ``DPMSolverMultistepScheduler`` from 0.999 to 0. Both start just below pure noise, where log-SNR is finite and the
    first prediction can be used in later steps.

    Args:
        t_max: The first time.
        t_min: The time after the last one.
        shift: Shift of the times of rectified flow in sampling (``flow_shift`` in diffusers). None for the shift of
            training, which the schedule has already.
    """

    t_max: Annotated[float, Interval(gt=0, le=1)] = 1.0
    t_min: ShareBelowOne = _FIRST_TIME
    shift: Positive | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max <= 1:
            raise ValueError(f"t_min must lie in [0, t_max), but is {self.t_min}, and t_max is {self.t_max}")

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        """Return the times."""
        times = torch.linspace(self.t_max, self.t_min, num_steps + 1, dtype=torch.float64)[:-1]
        if self.shift is not None:
            noise = shifted(times, self.shift)
            times = schedule.time(2 * (torch.log1p(-noise) - torch.log(noise)))
        return times.clamp(max=float(schedule.time(times.new_tensor([-2 * _LARGEST_LOGIT]))))


@dataclass(frozen=True)
class BetweenNoiseLevels(ABC):
    """Base class of spacings between two noise levels, independent of the schedule's times.

    Noise levels are noise-to-signal ratios ``sigma / alpha``, the sigma of Karras et al. 2022.

    Args:
        sigma_min: The last noise level. None for the schedule's at ``t = 0`` or, if that is 0, at ``t = 0.001``.
        sigma_max: The first noise level. None for the schedule's at ``t = 1``.
    """

    sigma_min: Positive | None = None
    sigma_max: Positive | None = None

    def __post_init__(self) -> None:
        for name, sigma in (("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)):
            if sigma is not None and not 0 < sigma < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, but is {sigma}")
        if self.sigma_min is not None and self.sigma_max is not None:
            _check_order(self.sigma_min, self.sigma_max)

    @abstractmethod
    def noise_levels(self, sigma_max: float, sigma_min: float, num_steps: int) -> Level:
        """Return ``num_steps`` decreasing noise levels in float64, including both ends."""

    def __call__(self, schedule: NoiseSchedule, num_steps: int) -> Level:
        """Return the times.

        Raises:
            ValueError: If an end is infinite or outside of the schedule.
        """
        sigma_min, sigma_max = self._ends(schedule)
        return schedule.time(-2 * torch.log(self.noise_levels(sigma_max, sigma_min, num_steps)))

    def _ends(self, schedule: NoiseSchedule) -> tuple[float, float]:
        ends = torch.tensor([0.0, _FIRST_TIME, 1.0], dtype=torch.float64)
        start, first, most = map(float, torch.exp(-schedule.log_snr(ends) / 2))
        sigma_min = (start or first) if self.sigma_min is None else self.sigma_min
        sigma_max = most if self.sigma_max is None else self.sigma_max
        if math.isinf(sigma_max):
            raise ValueError(
                "sigma_max must be given, since the schedule ends in pure noise, which is infinite here: choose "
                "sampler.spacing.sigma_max=80 or so; or sampler/spacing=trailing, if the sampler can start there"
            )
        _check_order(sigma_min, sigma_max)
        for name, sigma in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
            if not _is_reached(schedule, sigma):
                raise ValueError(f"{name} must lie in the schedule's {start:g} to {most:g}, but is {sigma}")
        return sigma_min, sigma_max


@dataclass(frozen=True)
class UniformLogSNR(BetweenNoiseLevels):
    """Uniform in log-SNR: noise levels fall by the same factor in each step (Lu et al. 2022, section 3.3).

    Args:
        sigma_min: See ``BetweenNoiseLevels``.
        sigma_max: See ``BetweenNoiseLevels``.
    """

    def noise_levels(self, sigma_max: float, sigma_min: float, num_steps: int) -> Level:
        """Return the noise levels."""
        return torch.exp(torch.linspace(math.log(sigma_max), math.log(sigma_min), num_steps, dtype=torch.float64))


@dataclass(frozen=True)
class Karras(BetweenNoiseLevels):
    """Uniform in the ``rho``-th root of the noise level (Karras et al. 2022, eq. 5).

    Args:
        sigma_min: See ``BetweenNoiseLevels``.
        sigma_max: See ``BetweenNoiseLevels``.
        rho: A higher rho puts more points at low noise levels.
    """

    rho: Positive = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho <= 0:
            raise ValueError(f"rho must be > 0, but is {self.rho}")

    def noise_levels(self, sigma_max: float, sigma_min: float, num_steps: int) -> Level:
        """Return the noise levels."""
        roots = [sigma ** (1 / self.rho) for sigma in (sigma_max, sigma_min)]
        return torch.linspace(roots[0], roots[1], num_steps, dtype=torch.float64) ** self.rho


def _check_t_min(t_min: float) -> None:
    if not 0 < t_min < 1:
        raise ValueError(f"t_min must lie between 0 and 1, since there may be no noise at 0, but is {t_min}")


def _check_order(sigma_min: float, sigma_max: float) -> None:
    if sigma_min >= sigma_max:
        raise ValueError(f"sigma_min must lie below sigma_max, but is {sigma_min:g} against {sigma_max:g}")


def _is_reached(schedule: NoiseSchedule, noise_to_signal: float) -> bool:
    log_snr = torch.tensor([-2 * math.log(noise_to_signal)], dtype=torch.float64)
    return bool(torch.isclose(schedule.log_snr(schedule.time(log_snr)), log_snr, rtol=0, atol=1e-3))
