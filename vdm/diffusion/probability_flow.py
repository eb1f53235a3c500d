"""The probability-flow ODE, in a variable in which it is regular from pure noise to data.

In the ODE of Song et al. 2021 (eq. 13), ``dx/dt = f x - g^2/2 grad log p(x)``, ``f`` is infinite where there is no
signal, and ``g^2`` can be infinite where there is no noise. Let ``tan(angle) = sigma / alpha`` and ``y = xt /
sqrt(alpha^2 + sigma^2) = cos(angle) x0 + sin(angle) noise``. Then the same ODE is

    dy/dangle = v = cos(angle) E[noise | xt] - sin(angle) E[x0 | xt]

(Salimans & Ho 2022, appendix D) for every schedule. A schedule determines the noise level at each time and the scale of
the latents, and the paths of ``y`` depend on neither.
"""

import math

import torch

from vdm.diffusion.denoiser import Denoise
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, Level, over_latents


def angle_range(schedule: NoiseSchedule, sigma_min: float) -> tuple[float, float]:
    """Return the angles at the two ends of the ODE: at data, and at noise.

    Args:
        schedule: Signal and noise at each time; noise is at ``t = 1``.
        sigma_min: Noise-to-signal ratio at data, unless the schedule has more at ``t = 0``.

    Raises:
        ValueError: If ``sigma_min`` is not above 0 and below the ratio at ``t = 1``.
    """
    ends = torch.exp(-schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)) / 2)
    least, most = map(float, ends)
    if not 0 < sigma_min < most:
        raise ValueError(
            f"sigma_min must be > 0 and below the noise of the schedule's end, {most:g}, but is {sigma_min}"
        )
    return math.atan(max(sigma_min, least)), math.atan(most)


def alpha_sigma(schedule: NoiseSchedule, angle: Level) -> tuple[Level, Level]:
    """Return the schedule's ``alpha`` and ``sigma`` at an angle."""
    return schedule.at_log_snr(-2 * torch.log(torch.tan(angle)))


def denoised(denoise: Denoise, schedule: NoiseSchedule, y: Latents, angle: Level) -> Latents:
    """Return the predicted clean latents for ``y``."""
    alpha, sigma = (level.to(y) for level in alpha_sigma(schedule, angle))
    return denoise(over_latents(torch.hypot(alpha, sigma)) * y, alpha, sigma).x0


def velocity(denoise: Denoise, schedule: NoiseSchedule, y: Latents, angle: Level) -> Latents:
    """Return v.

    Args:
        denoise: The model.
        schedule: Determines the scale of the model's input at each noise level.
        y: Noised latents, scaled to ``alpha^2 + sigma^2 = 1``.
        angle: Noise level of each clip, preferably in float64 on the CPU.
    """
    x0 = denoised(denoise, schedule, y, angle)
    # Equals (cos y - x0) / sin, which needs no prediction of the noise and no division by alpha.
    return (over_latents(torch.cos(angle).to(y)) * y - x0) / over_latents(torch.sin(angle).to(y))
