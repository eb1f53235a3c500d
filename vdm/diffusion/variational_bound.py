"""Terms of DDPM's variational bound, in nats per dimension, differentiable in the model's predictions.

``-log p(x0) <= E[L_T + sum of L_(t-1) + L_0]`` (Ho et al. 2020, eq. 5). ``L_T`` is the term of the prior, which does
not depend on the network. Each reverse step has a term ``L_(t-1)``; that of the last step, to clean latents, is the
negative log-likelihood ``L_0``.

Steps go between any two noise levels of any schedule. The model's log-variance lies between that of the posterior given
x0, ``share = 0``, and that of the forward step, ``share = 1`` (Nichol & Dhariwal 2021, eq. 15).
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

    Both distributions are normal. The squared difference of the means, divided by the posterior's variance, is
    ``(SNR(then) - SNR(now)) (x0 - denoised)^2`` (Kingma et al. 2021, appendix E).

    Args:
        x0: Clean latents.
        denoised: Clean latents predicted by the model.
        share: Position of the model's log-variance between its two bounds, from 0 to 1.
        schedule: Signal and noise at each time.
        now: Time of each clip before the step.
        then: Time after the step, at which there is still noise.
    """
    log_snr_now, log_snr_then = schedule.log_snr(now), schedule.log_snr(then)
    (_, sigma_now), (_, sigma_then) = schedule.at_log_snr(log_snr_now), schedule.at_log_snr(log_snr_then)
    snr_lost = -torch.exp(log_snr_then) * torch.expm1(log_snr_now - log_snr_then)
    # Difference of the bounds of log-variance, and of the model's log-variance from the lower one, the posterior's.
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
    """Return ``L_0`` of discrete pixels: a normal distribution is integrated over an interval around each value.

    Ho et al. 2020, eq. 13: the intervals of the first and the last value extend to infinity.

    Args:
        x0: Pixels from -1 to 1.
        mean: Mean of the model's last step.
        log_variance: Logarithm of its variance.
        num_values: Number of equally spaced values from -1 to 1.
    """
    half_step = 1 / (num_values - 1)
    # In fp32, the derivative of log_ndtr is inaccurate where log_ndtr is large.
    dtype = torch.float32 if x0.device.type == "mps" else torch.float64
    offset, inverse_deviation = (x0 - mean).to(dtype), torch.exp(-log_variance.to(dtype) / 2)
    lower = torch.where(x0 < -1 + half_step, -math.inf, (offset - half_step) * inverse_deviation)
    upper = torch.where(x0 > 1 - half_step, math.inf, (offset + half_step) * inverse_deviation)
    return -_log_probability(lower, upper).to(x0.dtype)


def density_term(x0: Latents, mean: Latents, log_variance: Latents) -> Latents:
    """Return ``L_0`` of continuous latents: the negative log-density of the normal distribution."""
    return ((x0 - mean) ** 2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)) / 2


def _log_probability(lower: Tensor, upper: Tensor) -> Tensor:
    """Return the logarithm of the probability of an interval under the standard normal distribution."""
    # Negating the interval does not change its probability, and the probabilities below are accurate for negative x.
    is_above = lower + upper > 0
    lower, upper = torch.where(is_above, -upper, lower), torch.where(is_above, -lower, upper)
    log_below = _log_cdf(upper)
    share = -torch.expm1(_log_cdf(lower) - log_below)
    # Rounding could make the probability of a narrow interval 0.
    return log_below + torch.log(share.clamp(min=torch.finfo(share.dtype).tiny))


def _log_cdf(x: Tensor) -> Tensor:
    return cast(Tensor, torch.special.log_ndtr(x))  # pyright: ignore[reportUnknownMemberType]  # torch has no types
