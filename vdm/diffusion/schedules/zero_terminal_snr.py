"""A schedule that ends in pure noise."""

from dataclasses import dataclass

import torch

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Level


@dataclass(frozen=True)
class ZeroTerminalSNR(NoiseSchedule):
    """A variance-preserving schedule with ``alpha`` shifted and scaled so that ``alpha = 0`` at ``t = 1``.

    Lin et al. 2023, algorithm 1, in continuous time: ``alpha`` becomes ``(alpha(t) - alpha(1)) alpha(0) / (alpha(0) -
    alpha(1))``, which is unchanged at ``t = 0``. For tables of betas, use their argument ``zero_terminal_snr`` instead,
    which leaves the first timestep unchanged, as in the paper.

    Args:
        schedule: The schedule, with ``alpha^2 + sigma^2 = 1``.
    """

    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        alpha, sigma = self.schedule.at_log_snr(torch.zeros(1, device="cpu"))
        if abs(float(alpha**2 + sigma**2) - 1) > 1e-5:
            raise ValueError(
                f"schedule must preserve variance, as Cosine, VariancePreserving and Sigmoid do, but is {self.schedule}"
            )

    def log_snr(self, t: Level) -> Level:
        """Return log-SNR at time ``t``."""
        ends_alpha, ends_sigma = self.schedule.alpha_sigma(torch.tensor([0.0, 1.0], dtype=t.dtype, device=t.device))
        alpha, sigma = self.schedule.alpha_sigma(t)
        scale = ends_alpha[0] / (ends_alpha[0] - ends_alpha[1])
        # 1 - alpha is computed from sigma, since subtracting an alpha of nearly 1 would lose digits.
        to_one, start_to_one = sigma**2 / (1 + alpha), ends_sigma[0] ** 2 / (1 + ends_alpha[0])
        alpha, to_one = scale * (alpha - ends_alpha[1]), start_to_one + scale * (to_one - start_to_one)
        return 2 * torch.log(alpha.clamp(min=0)) - torch.log(to_one) - torch.log1p(alpha)
