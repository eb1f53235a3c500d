"""The sigmoid schedule."""

import math
from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import Between0And1, LogRatio, Positive


@dataclass(frozen=True)
class Sigmoid(NoiseSchedule):
    """``alpha^2`` is a piece of a falling sigmoid, stretched to run from 1 to 0 (Jabri et al. 2022; Chen 2023, alg. 1).

    With ``s(x) = 1 / (1 + exp(-x))`` and ``x(t) = (start + t (end - start)) / tau``,
    ``alpha^2 = (s(x(1)) - s(x(t))) / (s(x(1)) - s(x(0)))``.

    Args:
        start: Where the piece begins.
        end: Where it ends.
        tau: Temperature; less makes the schedule steeper in the middle.
        clip_min: Bound of ``alpha^2`` from below.
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

        A difference of sigmoids is ``s(a) - s(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2))``, which is used for
        ``alpha^2`` and ``1 - alpha^2`` alike: subtracting sigmoids would lose fp32's digits near both ends.
        """
        half_width = (self.end - self.start) / (2 * self.tau)
        signal, noise = torch.sinh(half_width * (1 - t)), torch.sinh(half_width * t)
        ratio_of_ends = math.cosh(self.start / (2 * self.tau)) / math.cosh(self.end / (2 * self.tau))
        # At t = 1 there is no signal. log(0) would be bounded below as well, but its derivative is infinite times 0.
        signal = signal.clamp(min=torch.finfo(signal.dtype).tiny)
        log_snr = torch.log(signal) - torch.log(noise) + math.log(ratio_of_ends)
        return log_snr.clamp(min=math.log(self.clip_min / (1 - self.clip_min)))
