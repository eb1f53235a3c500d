"""The probability-flow ODE, in the variable in which it is regular from pure noise to data.

The ODE of Song et al. 2021 (eq. 13), ``dx/dt = f x - g^2/2 grad log p(x)``, has infinite ``f`` where a schedule has no
signal left, and infinite ``g^2`` where another has no noise yet. Let ``tan(angle) = sigma / alpha`` and
``y = xt / sqrt(alpha^2 + sigma^2) = cos(angle) x0 + sin(angle) noise``. Then the same ODE reads

    dy/dangle = v = cos(angle) E[noise | xt] - sin(angle) E[x0 | xt]

(Salimans & Ho 2022, appendix D), whatever the schedule: this says how noise levels follow each other in time, and how
latents are scaled, and neither matters to the paths of ``y``.
"""

import math

import torch

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, Level, over_latents


def angle_range(schedule: NoiseSchedule, sigma_min: float) -> tuple[float, float]:
    """Return the angles at the ends of the ODE: that of data, that of noise.

    Args:
        schedule: Its noise level at ``t = 1`` is where noise is; its noise level at ``t = 0`` is the least there is.
        sigma_min: Noise of data, as a share of the signal, unless the schedule begins with more.

    Raises:
        ValueError: If that is no noise, or more than the schedule has.
    """
    ends = torch.exp(-schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)) / 2)
    least, most = map(float, ends)
    if not 0 < sigma_min < most:
        raise ValueError(
            f"sigma_min must be > 0 and below the noise of the schedule's end, {most:g}, but is {sigma_min}"
        )
    return math.atan(max(sigma_min, least)), math.atan(most)


def alpha_sigma(schedule: NoiseSchedule, angle: Level) -> tuple[Level, Level]:
    """Return the factors of clean latents and of noise at an angle."""
    return schedule.at_log_snr(-2 * torch.log(torch.tan(angle)))


def denoised(denoise: Denoise, schedule: NoiseSchedule, y: Latents, angle: Level) -> Latents:
    """Return the clean latents expected behind ``y``."""
    alpha, sigma = (level.to(y) for level in alpha_sigma(schedule, angle))
    return denoise(over_latents(torch.hypot(alpha, sigma)) * y, alpha, sigma).x0


def velocity(denoise: Denoise, schedule: NoiseSchedule, y: Latents, angle: Level) -> Latents:
    """Return v.

    Args:
        denoise: The model.
        schedule: How latents are scaled at each noise level.
        y: Noised latents, scaled to ``alpha^2 + sigma^2 = 1``.
        angle: The noise level of each clip, best in float64 and on the CPU.
    """
    x0 = denoised(denoise, schedule, y, angle)
    # In this form, (cos y - x0) / sin, no noise is needed, and nothing is divided by alpha.
    return (over_latents(torch.cos(angle).to(y)) * y - x0) / over_latents(torch.sin(angle).to(y))
