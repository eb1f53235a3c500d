"""The cosine schedule in continuous time."""

import math
from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import LogRatio


@dataclass(frozen=True)
class Cosine(NoiseSchedule):
    """``alpha = cos(pi t / 2)`` with bounded log-SNR.

    Nichol & Dhariwal 2021, eq. 17, in the form of Ho et al. 2022 (section 3 and appendix): log-SNR is
    ``-2 log tan(a t + b)``, from ``log_snr_max`` at ``t = 0`` to ``log_snr_min`` at ``t = 1``.

    Args:
        log_snr_min: log-SNR at ``t = 1``.
        log_snr_max: log-SNR at ``t = 0``.
    """

    log_snr_min: LogRatio = -20.0
    log_snr_max: LogRatio = 20.0

    def __post_init__(self) -> None:
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(
                f"log_snr_min must lie below log_snr_max, but is {self.log_snr_min} against {self.log_snr_max}"
            )

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        start, end = self._angles
        angle = start + (end - start) * t
        # tan(angle) = sin(angle) / sin(pi / 2 - angle); near pi / 2, tan itself would lose digits in fp32.
        complement = (math.pi / 2 - end) + (end - start) * (1 - t)
        return 2 * (torch.log(torch.sin(complement)) - torch.log(torch.sin(angle)))

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value; clipped to [0, 1]."""
        start, end = self._angles
        return ((torch.atan(torch.exp(-log_snr / 2)) - start) / (end - start)).clamp(0, 1)

    @property
    def _angles(self) -> tuple[float, float]:
        """The angle ``a t + b`` at ``t = 0`` and at ``t = 1``."""
        return math.atan(math.exp(-self.log_snr_max / 2)), math.atan(math.exp(-self.log_snr_min / 2))
