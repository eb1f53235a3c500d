"""The sigmoid schedule."""

import math
from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import Between0And1, LogRatio, Positive


@dataclass(frozen=True)
class Sigmoid(NoiseSchedule):
    """``alpha^2`` is a segment of a sigmoid, scaled to fall from 1 to 0 (Jabri et al. 2022; Chen 2023, alg. 1).

    With ``s(x) = 1 / (1 + exp(-x))`` and ``x(t) = (start + t (end - start)) / tau``,
    ``alpha^2 = (s(x(1)) - s(x(t))) / (s(x(1)) - s(x(0)))``.

    Args:
        start: Argument of the sigmoid at ``t = 0``, before division by tau.
        end: Argument of the sigmoid at ``t = 1``, before division by tau.
        tau: Temperature; a lower one makes the schedule steeper in the middle.
        clip_min: Lower bound of ``alpha^2``.
    """

    start: LogRatio = -3.0
    end: LogRatio = 3.0
    tau: Positive = 1.0
    clip_min: Between0And1 = 1e-9

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"start must lie below end, but is {self.start} against {self.end}")
        if self.tau <= 0:
            raise ValueError(f"tau must be > 0, but is {self.tau}")
        if not 0 < self.clip_min < 1:
            raise ValueError(f"clip_min must lie between 0 and 1, but is {self.clip_min}")

    def log_snr(self, t: Level) -> Level:
        """Return ``log(alpha^2 / (1 - alpha^2))``.

        Both are computed by ``s(a) - s(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2))``, since the subtraction of
        sigmoids would lose digits near both ends.
        """
        half_width = (self.end - self.start) / (2 * self.tau)
        signal, noise = torch.sinh(half_width * (1 - t)), torch.sinh(half_width * t)
        ratio_of_ends = math.cosh(self.start / (2 * self.tau)) / math.cosh(self.end / (2 * self.tau))
        # At t = 1 there is no signal. The final clamp would bound log(0) too, but with a gradient of infinity times 0.
        signal = signal.clamp(min=torch.finfo(signal.dtype).tiny)
        log_snr = torch.log(signal) - torch.log(noise) + math.log(ratio_of_ends)
        return log_snr.clamp(min=math.log(self.clip_min / (1 - self.clip_min)))
