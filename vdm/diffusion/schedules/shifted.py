"""The same schedule with more or less noise at every time."""

from dataclasses import dataclass

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import LogRatio


@dataclass(frozen=True)
class Shifted(NoiseSchedule):
    """A schedule with a number added to its log-SNR at every time.

    Clips that say the same in many pixels and frames need more noise: shift by ``2 log(64 / side)`` against pictures of
    64 pixels a side (Hoogeboom et al. 2023, eq. 11 and 12). For straight paths this is the shift of timesteps
    ``t' = s t / (1 + (s - 1) t)`` of Esser et al. 2024 (eq. 23), with ``log_snr_shift = -2 log s``.

    Args:
        schedule: The schedule.
        log_snr_shift: Added to its log-SNR; below 0 means more noise.
    """

    schedule: NoiseSchedule
    log_snr_shift: LogRatio

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        return self.schedule.log_snr(t) + self.log_snr_shift

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha`` and ``sigma`` in the schedule's own family."""
        return self.schedule.at_log_snr(log_snr)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR is this."""
        return self.schedule.time(log_snr - self.log_snr_shift)
