"""The terms of DDPM's variational bound, in nats for each number of the latents, differentiable in what a model says.

``-log p(x0) <= E[L_T + sum of L_(t-1) + L_0]`` (Ho et al. 2020, eq. 5): the prior's term, in which no network has a
part, one for each step back, and for the last of them, to clean latents, their negative log-likelihood.

Steps are between any two noise levels of any schedule. The model's log-variance lies between that of the posterior
given x0, ``share = 0``, and that of the forward step, ``share = 1`` (Nichol & Dhariwal 2021, eq. 15).
"""

import math
from typing import cast

import torch
from torch import Tensor

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, Level, over_latents


def step_term(
    x0: Latents, denoised: Latents, share: Latents, schedule: NoiseSchedule, now: Level, then: Level
) -> Latents:
    """Return ``L_(t-1) = KL(q(x_then | x_now, x0) || p(x_then | x_now))``.

    Both are normal. The means differ by ``x0 - denoised`` with a factor whose square, divided by the posterior's
    variance, is ``SNR(then) - SNR(now)`` (Kingma et al. 2021, appendix E).

    Args:
        x0: Clean latents.
        denoised: What the model takes them for.
        share: Where the model's log-variance lies between its two bounds.
        schedule: Signal and noise at each time.
        now: Time of each clip before the step.
        then: Time after the step, where there is still noise.
    """
    log_snr_now, log_snr_then = schedule.log_snr(now), schedule.log_snr(then)
    (_, sigma_now), (_, sigma_then) = schedule.at_log_snr(log_snr_now), schedule.at_log_snr(log_snr_then)
    snr_lost = -torch.exp(log_snr_then) * torch.expm1(log_snr_now - log_snr_then)
    # How far the bounds lie apart, and the model's log-variance above the lower one, that of the posterior.
    width = 2 * (sigma_now.log() - sigma_then.log())
    excess = share * over_latents(width)
    error = over_latents(snr_lost) * (x0 - denoised) ** 2
    return (excess + torch.expm1(-excess) + error * torch.exp(-excess)) / 2


def posterior_log_variance(schedule: NoiseSchedule, now: Level, then: Level) -> Level:
    """Return the log-variance of ``q(x_then | x_now, x0)``, which is ``sigma_then^2 (1 - SNR(now) / SNR(then))``."""
    log_snr_now, log_snr_then = schedule.log_snr(now), schedule.log_snr(then)
    _, sigma_then = schedule.at_log_snr(log_snr_then)
    return 2 * sigma_then.log() + torch.log(-torch.expm1(log_snr_now - log_snr_then))


def pixel_term(x0: Latents, mean: Latents, log_variance: Latents, num_values: int) -> Latents:
    """Return ``L_0`` of pixels, which have one of a few values: the share of a normal distribution about each.

    Ho et al. 2020, eq. 13: the first and the last value have all that lies beyond.

    Args:
        x0: Pixels from -1 to 1.
        mean: Mean of the model's last step.
        log_variance: Logarithm of its variance.
        num_values: How many values there are, -1 and 1 among them, equally spaced.
    """
    half_step = 1 / (num_values - 1)
    # log_ndtr's derivative in fp32 is far off where log_ndtr is large.
    dtype = torch.float32 if x0.device.type == "mps" else torch.float64
    offset, inverse_deviation = (x0 - mean).to(dtype), torch.exp(-log_variance.to(dtype) / 2)
    lower = torch.where(x0 < -1 + half_step, -math.inf, (offset - half_step) * inverse_deviation)
    upper = torch.where(x0 > 1 - half_step, math.inf, (offset + half_step) * inverse_deviation)
    return -_log_probability(lower, upper).to(x0.dtype)


def density_term(x0: Latents, mean: Latents, log_variance: Latents) -> Latents:
    """Return ``L_0`` of latents that may have any value: the normal distribution's negative log-density."""
    return ((x0 - mean) ** 2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)) / 2


def _log_probability(lower: Tensor, upper: Tensor) -> Tensor:
    """Return the logarithm of a standard normal distribution's probability of an interval, wherever it lies."""
    # The interval mirrored has the same probability; of the two, the one further down has more digits.
    is_above = lower + upper > 0
    lower, upper = torch.where(is_above, -upper, lower), torch.where(is_above, -lower, upper)
    log_below = _log_cdf(upper)
    share = -torch.expm1(_log_cdf(lower) - log_below)
    # An interval too narrow for the digits would have probability 0.
    return log_below + torch.log(share.clamp(min=torch.finfo(share.dtype).tiny))


def _log_cdf(x: Tensor) -> Tensor:
    return cast(Tensor, torch.special.log_ndtr(x))  # pyright: ignore[reportUnknownMemberType]  # torch has no types
