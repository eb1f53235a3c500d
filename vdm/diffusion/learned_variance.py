"""Learned variances of reverse steps (Nichol & Dhariwal 2021)."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge

from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Counted, Latents, Output, PerClip, mean_of_clips, over_latents
from vdm.diffusion.variational_bound import density_term, pixel_term, posterior_log_variance, step_term
from vdm.ranges import Positive, Size
from vdm.types import NoisedLatents


@dataclass(frozen=True)
class LearnedVariance:
    """The network has a second output channel for each channel of the latents, which determines the variances.

    The hybrid loss is the loss of the prediction, ``L_simple``, plus ``vlb_weight`` times ``L_vlb``, whose gradient
    goes to the variances alone (Nichol & Dhariwal 2021, eq. 16). ``L_vlb`` is estimated by ``num_timesteps`` times the
    term of the clip's timestep, in bits, as a mean over its latents. The sampler ``DDPM`` uses the variances.

    Args:
        num_timesteps: T, the number of steps of the bound. Times between two timesteps are rounded up to the later one.
            Sampling may take fewer steps.
        vlb_weight: lambda.
        num_pixel_values: Number of values of pixels in [-1, 1]. None for latents, which are continuous; the last step
            then has a probability density instead of a probability.
    """

    num_timesteps: Annotated[Size, Ge(2)] = 1000
    vlb_weight: Positive = 0.001
    num_pixel_values: Annotated[Size, Ge(2)] | None = 256

    def __post_init__(self) -> None:
        if self.num_timesteps < 2:
            raise ValueError(f"num_timesteps must be at least 2, but is {self.num_timesteps}")
        if self.vlb_weight <= 0:
            raise ValueError(f"vlb_weight must be > 0, but is {self.vlb_weight}")
        if self.num_pixel_values is not None and self.num_pixel_values < 2:
            raise ValueError(f"num_pixel_values must be at least 2, or null, but is {self.num_pixel_values}")

    def split(self, output: Output, num_channels: int) -> tuple[Latents, Latents]:
        """Split a network's output into the prediction and the ``variance_share`` of ``Denoised``.

        An output of -1 means a share of 0, the posterior's log-variance; 1 means a share of 1, the forward step's (eq.
        15).

        Args:
            output: The network's output, channels of the prediction first.
            num_channels: Number of channels of the latents.

        Raises:
            ValueError: If the output does not have twice as many channels.
        """
        if output.shape[1] != 2 * num_channels:
            raise ValueError(
                f"with learned_variance the network must output {2 * num_channels} channels, two for each of the "
                f"latents' {num_channels}, but it outputs {output.shape[1]}"
            )
        prediction, raw = output.chunk(2, dim=1)
        return prediction, (raw + 1) / 2

    def loss(
        self,
        denoised: Latents,
        share: Latents,
        noised: NoisedLatents,
        schedule: NoiseSchedule,
        counted: Counted | None = None,
    ) -> PerClip:
        """Return ``vlb_weight L_vlb`` of each clip, a function of ``share`` alone.

        Args:
            denoised: Predicted clean latents; they get no gradient.
            share: ``variance_share`` of the prediction.
            noised: The noised latents.
            schedule: Signal and noise at each time.
            counted: True for frames that count; None for all.
        """
        denoised = denoised.detach()
        # The tolerance keeps a time that rounding put just above a timestep at that timestep.
        timestep = torch.ceil(noised.t * self.num_timesteps - 1e-2).clamp(1, self.num_timesteps)
        later = timestep.clamp(min=2)
        now, then = later / self.num_timesteps, (later - 1) / self.num_timesteps
        steps = step_term(noised.x0, denoised, share, schedule, now, then)
        is_first = over_latents(timestep) == 1
        # Select in the input too: otherwise gradients of terms that are not selected could be NaN.
        first_steps = self._first_term(torch.where(is_first, denoised, noised.x0), share, noised.x0, schedule)
        bits = mean_of_clips(torch.where(is_first, first_steps, steps), counted) / math.log(2)
        return self.vlb_weight * self.num_timesteps * bits

    def _first_term(self, denoised: Latents, share: Latents, x0: Latents, schedule: NoiseSchedule) -> Latents:
        """Return ``L_0``, the term of the step from timestep 1 to clean latents, whose mean is ``denoised``.

        The posterior's variance is 0 in this step; that of the preceding step is used instead, as in the authors' code.
        """
        first, second = (x0.new_full((1,), k / self.num_timesteps) for k in (1, 2))
        least = posterior_log_variance(schedule, now=second, then=first)
        most = 2 * schedule.alpha_sigma(first)[1].log()
        log_variance = over_latents(least) + share * over_latents(most - least)
        if self.num_pixel_values is None:
            return density_term(x0, denoised, log_variance)
        return pixel_term(x0, denoised, log_variance, self.num_pixel_values)
