"""The variational bound on the likelihood under DDPM.

Ho et al. 2020, eq. 5: ``-log p(x0) <= E[L_T + sum of L_(t-1) + L_0]``, for any schedule and any grid of noise levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.likelihood.base import NUM_PIXEL_VALUES, bits_per_dim
from vdm.diffusion.samplers.base import DrawNoise, GridPoint
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.spacing import Spacing, Trailing
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, Level, PerClip, over_latents
from vdm.diffusion.variational_bound import pixel_term, posterior_log_variance, step_term
from vdm.ranges import NumSteps, Share


@dataclass(frozen=True)
class VariationalBound:
    """Upper bound of bits per dimension, estimated with one noise sample for each term of each clip.

    Args:
        num_steps: T, the number of terms and of network evaluations; more steps make the bound tighter.
        gamma: Log-variance of the model's steps as in ``DDPM``, interpolated from that of the posterior given x0 (0) to
            that of the forward step (1). Ignored if the network has learned variances. Only with 0 does the bound of an
            exact model converge to its likelihood with more steps, for any spacing.
        spacing: Spacing of the noise levels.
    """

    num_steps: NumSteps = 1000
    gamma: Share = 0.0
    spacing: Spacing = Trailing()

    def __post_init__(self) -> None:
        _ = self.sampler  # checks the values

    @property
    def sampler(self) -> DDPM:
        """The sampler of the distribution for which the bound holds."""
        return DDPM(num_steps=self.num_steps, spacing=self.spacing, gamma=self.gamma)

    def __call__(
        self,
        denoise: Denoise,
        x0: Latents,
        schedule: NoiseSchedule,
        draw_noise: DrawNoise,
        on_step: Callable[[], object] | None = None,
    ) -> PerClip:
        """Return the bound for each clip; see ``Likelihood``."""
        grid = self.sampler.grid(schedule)
        # Terms are computed in float64, to resolve neighbouring noise levels, and on the CPU, which supports it.
        pixels = x0.cpu().double()
        nats = prior_term(pixels, grid[0])
        for number, (now, then) in enumerate(pairwise(grid), start=1):
            xt = now.alpha * x0 + now.sigma * draw_noise(number)
            denoised = denoise(xt, xt.new_full((len(xt),), now.alpha), xt.new_full((len(xt),), now.sigma))
            mean, share = denoised.x0.cpu().double(), self._variance_share(denoised).expand_as(pixels)
            if then.sigma > 0:
                term = step_term(pixels, mean, share, schedule, _times(now, pixels), _times(then, pixels))
            else:
                log_variance = last_log_variance(share, schedule, now, before=grid[max(0, number - 2)])
                term = pixel_term(pixels, mean, log_variance, NUM_PIXEL_VALUES)
            nats += term.flatten(1).sum(1)
            if on_step is not None:
                on_step()
        return bits_per_dim(nats, x0)

    def _variance_share(self, denoised: Denoised) -> Tensor:
        if denoised.variance_share is None:
            return torch.tensor(self.gamma, dtype=torch.float64)
        return denoised.variance_share.cpu().double()


def prior_term(x0: Latents, first: GridPoint) -> PerClip:
    """Return ``L_T`` in nats per clip: the KL divergence of ``q(xT | x0)`` from the initial noise of sampling.

    Both have variance ``sigma_T^2``; the means are ``alpha_T x0`` and 0.
    """
    return (x0 * first.alpha / first.sigma).square().flatten(1).sum(1) / 2


def last_log_variance(share: Latents, schedule: NoiseSchedule, last: GridPoint, before: GridPoint) -> Latents:
    """Return the log-variance of the step from the last noise level to pixels.

    Its lower bound, the posterior's log-variance, would be minus infinity. As in the code of Ho et al. 2020 and of
    Nichol & Dhariwal 2021, that of the preceding step, from ``before``, is used instead. If there is only one step,
    ``before`` equals ``last``, and the lower bound is the upper one.
    """
    last_time = _times(last, share)
    most = 2 * schedule.alpha_sigma(last_time)[1].log()
    least = most if before == last else posterior_log_variance(schedule, now=_times(before, share), then=last_time)
    return over_latents(least) + share * over_latents(most - least)


def _times(point: GridPoint, like: Tensor) -> Level:
    return like.new_full((len(like),), point.t)
