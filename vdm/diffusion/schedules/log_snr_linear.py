"""A schedule whose log-SNR is linear in time."""

from dataclasses import dataclass

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import LogRatio


@dataclass(frozen=True)
class LogSNRLinear(NoiseSchedule):
    """log-SNR is linear in time, from ``log_snr_max`` at ``t = 0`` to ``log_snr_min`` at ``t = 1``.

    The initial value of the learned schedule of Kingma et al. 2021 (appendix H). The bound on the likelihood depends on
    the schedule only through its two ends (section 5.1). Times outside of [0, 1] are valid and extend the line.

    Args:
        log_snr_min: log-SNR at ``t = 1``.
        log_snr_max: log-SNR at ``t = 0``.
    """

    log_snr_min: LogRatio = -5.0
    log_snr_max: LogRatio = 13.3

    def __post_init__(self) -> None:
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(
                f"log_snr_min must lie below log_snr_max, but is {self.log_snr_min} against {self.log_snr_max}"
            )

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        return self.log_snr_max + (self.log_snr_min - self.log_snr_max) * t

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value; it may lie outside of [0, 1]."""
        return (log_snr - self.log_snr_max) / (self.log_snr_min - self.log_snr_max)
