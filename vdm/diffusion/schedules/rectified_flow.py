"""The schedule of rectified flow: straight paths from data to noise."""

from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level


@dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    """``alpha = 1 - t`` and ``sigma = t`` (Liu et al. 2023; Lipman et al. 2023; Esser et al. 2024, eq. 13)."""

    def log_snr(self, t: Level) -> Level:
        """Return ``2 log((1 - t) / t)``."""
        return 2 * (torch.log1p(-t) - torch.log(t))

    def at_log_snr(self, log_snr: Level) -> tuple[Level, Level]:
        """Return ``alpha`` and ``sigma``, whose sum is 1."""
        return torch.sigmoid(log_snr / 2), torch.sigmoid(-log_snr / 2)

    def time(self, log_snr: Level) -> Level:
        """Return the time at which log-SNR has this value."""
        return torch.sigmoid(-log_snr / 2)
