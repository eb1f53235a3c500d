"""A schedule with shifted log-SNR: more or less noise at every time."""

from dataclasses import dataclass

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level
from vdm.ranges import LogRatio


@dataclass(frozen=True)
class Shifted(NoiseSchedule):
    """A schedule with a constant added to its log-SNR.

    Larger clips, which show the same content in more pixels and frames, need more noise: relative to images of 64x64
    pixels, shift by ``2 log(64 / side)`` (Hoogeboom et al. 2023, eq. 11 and 12). For rectified flow this is the
    timestep shift ``t' = s t / (1 + (s - 1) t)`` of Esser et al. 2024 (eq. 23), with ``log_snr_shift = -2 log s``.

    Args:
        schedule: The schedule without shift.
        log_snr_shift: Constant added to log-SNR; below 0 means more noise.
    """

    schedule: NoiseSchedule
    log_snr_shift: LogRatio

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        return self.schedule.log_snr(t) + self.log_snr_shift

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha`` and ``sigma`` of the schedule at this log-SNR."""
        return self.schedule.at_log_snr(log_snr)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value."""
        return self.schedule.time(log_snr - self.log_snr_shift)
