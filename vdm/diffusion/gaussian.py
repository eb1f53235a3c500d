"""Gaussian diffusion of latents: adding noise, and the loss of a prediction."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from vdm import randomness
from vdm.diffusion.distances import Distance, SquaredError
from vdm.diffusion.frame_levels import FrameLevels, LevelPerClip, Times, clean_where_known
from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.loss_weights import LossWeight
from vdm.diffusion.noise_levels import NoiseLevels
from vdm.diffusion.noise_priors import Independent, NoisePrior
from vdm.diffusion.parameterizations import Parameterization
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Counted, Latents, Level, Output, PerClip, mean_of_frames, over_latents
from vdm.diffusion.time_ranges import ALL_TIMES, TimeRange
from vdm.diffusion.time_shifts import ShiftedTimes, TimeShift, shifted
from vdm.ranges import Positive
from vdm.types import NoisedLatents


@dataclass(frozen=True)
class GaussianDiffusion:
    """The parts of a diffusion model other than its network.

    Args:
        schedule: Signal and noise at each time.
        parameterization: The network's prediction.
        noise_levels: Distribution of times in training.
        loss_weight: Weight of the loss at each noise level.
        clip_denoised: Bound to which sampling clips denoised latents: 1 for pixels, None for unbounded latents.
        noise_prior: Distribution of a clip's noise; ``noise`` in ``add_noise`` is drawn from it.
        distance: Distance of a prediction from its target.
        learned_variance: How the network learns variances of reverse steps. None for fixed variances.
        time_shift: Shift of the times of training and sampling by the size of a clip. None for no shift.
        frame_levels: Noise levels of the frames of a clip.
    """

    schedule: NoiseSchedule
    parameterization: Parameterization
    noise_levels: NoiseLevels
    loss_weight: LossWeight
    clip_denoised: Positive | None = None
    noise_prior: NoisePrior = Independent()
    distance: Distance = SquaredError()
    learned_variance: LearnedVariance | None = None
    time_shift: TimeShift | None = None
    frame_levels: FrameLevels = LevelPerClip()

    def __post_init__(self) -> None:
        if self.clip_denoised is not None and self.clip_denoised <= 0:
            raise ValueError(f"clip_denoised must be > 0, or null for no bound, but is {self.clip_denoised}")
        self._check_prediction_of_pure_noise()
        self._check_weights()

    def out_channels(self, num_channels: int) -> int:
        """Return the number of channels that the network must output for latents with ``num_channels``."""
        return num_channels if self.learned_variance is None else 2 * num_channels

    def draw_times(
        self,
        seed: int,
        positions: Int[Tensor, " b"],
        global_batch_size: int,
        shape: tuple[int, ...],
        num_images: int = 0,
        within: TimeRange = ALL_TIMES,
    ) -> Times:
        """Draw the training time of each sample, as a function of (seed, position).

        Args:
            seed: Seed of the run.
            positions: Position of each clip in the order of training.
            global_batch_size: Number of samples in one optimizer step.
            shape: Channels, frames, rows and columns of one clip's latents, including its independent images.
            num_images: How many of the last frames are independent images. Their times are shifted like the clip's.
            within: Range of the times, after any shift; its probability must be above 0.
        """
        channels, num_frames, height, width = shape
        clip = (channels, num_frames - num_images, height, width)
        part = (self.share_below(within.start, clip), self.share_below(within.end, clip))

        def times(purpose: str) -> PerClip:
            t = self.noise_levels(seed, positions, global_batch_size, self.schedule, purpose, part)
            return within.clamp(t if self.time_shift is None else self.time_shift(t, clip))

        def uniform(purpose: str) -> PerClip:
            return randomness.uniform(seed, purpose, map(int, positions))

        return self.frame_levels(times, uniform, clip[1], num_images)

    def share_below(self, t: float, shape: tuple[int, ...]) -> float:
        """Return the probability that the training time of a clip is below ``t``, after any shift.

        Args:
            t: A time; from 1 on the probability is 1, up to 0 it is 0.
            shape: Channels, frames, rows and columns of the clip's latents.
        """
        if not 0 < t < 1:
            return float(t >= 1)
        if self.time_shift is not None:
            t = float(shifted(torch.tensor([t], dtype=torch.float64, device="cpu"), 1 / self.time_shift.factor(shape)))
        return self.noise_levels.share_below(t, self.schedule)

    def sampling_schedule(self, shape: tuple[int, ...]) -> NoiseSchedule:
        """Return the schedule for sampling latents of a shape: channels, frames, rows and columns."""
        return self.schedule if self.time_shift is None else ShiftedTimes(self.schedule, self.time_shift.factor(shape))

    def add_noise(self, x0: Latents, noise: Latents, t: Level, counted: Counted | None = None) -> NoisedLatents:
        """Add noise to clean latents at the time of each clip or frame: ``xt = alpha_t x0 + sigma_t noise``.

        Frames that don't count stay clean, with ``alpha = 1`` and ``sigma = 0``, even if the schedule has noise at
        ``t = 0``.

        Args:
            x0: Clean latents.
            noise: Noise drawn from ``noise_prior``.
            t: Time of each clip, or of each frame.
            counted: True for frames that are noised; None for all. Has an effect only if ``t`` is one a frame.
        """
        alpha, sigma = self.schedule.alpha_sigma(t)
        xt = over_latents(alpha) * x0 + over_latents(sigma) * noise
        if counted is not None and t.ndim == 2:
            xt, alpha, sigma = clean_where_known(xt, alpha, sigma, x0, ~counted)
        return NoisedLatents(x0, noise, xt, t, alpha, sigma)

    def loss(self, output: Output, noised: NoisedLatents, counted: Counted | None = None) -> PerClip:
        """Return the loss of each clip, in fp32.

        With one noise level a clip, it is the weight times the distance. With one a frame, it is the mean over frames
        of weight times distance.

        Args:
            output: The network's output.
            noised: The noised latents of its input.
            counted: True for frames that count; None for all. A clip without such frames has a loss of 0.
        """
        output = output.float()
        if self.learned_variance is None:
            return self._prediction_loss(output, noised, counted)
        prediction, share = self.learned_variance.split(output, noised.x0.shape[1])
        denoised = self.parameterization.x0(prediction, noised.xt, noised.alpha, noised.sigma)
        bound = self.learned_variance.loss(denoised, share, noised, self.schedule, counted)
        return self._prediction_loss(prediction, noised, counted) + bound

    def _prediction_loss(self, prediction: Latents, noised: NoisedLatents, counted: Counted | None) -> PerClip:
        target = self.parameterization.target(noised.x0, noised.noise, noised.alpha, noised.sigma)
        weight = self.loss_weight(noised, self.parameterization, self.schedule)
        if weight.ndim == 1:
            return weight * self.distance(prediction, target, counted)
        frames = (rearrange(latents, "b c t h w -> (b t) c 1 h w") for latents in (prediction, target))
        distance = rearrange(self.distance(*frames), "(b t) -> b t", b=len(weight))
        if counted is not None:
            # The weight of a clean frame may be infinite, and infinity times 0 would be NaN, also in the gradient.
            weight = torch.where(counted, weight, 0)
        return mean_of_frames(weight * distance, counted)

    def _check_prediction_of_pure_noise(self) -> None:
        """Refuse a parameterization from which x0 can't be recovered at ``t = 1``, where sampling starts."""
        alpha, sigma = self.schedule.alpha_sigma(torch.ones(1, dtype=torch.float64, device="cpu"))
        a, b = self.parameterization.target_factors(alpha, sigma)
        sine = (a * sigma - b * alpha) / (torch.hypot(a, b) * torch.hypot(alpha, sigma))
        if not abs(float(sine)) > torch.finfo(torch.float32).eps:
            raise ValueError(
                f"parameterization={self.parameterization}: can't recover clean latents at t=1, where "
                f"schedule={self.schedule} has alpha={float(alpha):.3g}; choose V, X0, Velocity or EDM"
            )

    def _check_weights(self) -> None:
        """Refuse a loss weight that is not finite at the first or last time that can be drawn."""
        ends = torch.tensor([0, 1 - 2**-24], dtype=torch.float32, device="cpu")
        times = self.noise_levels.quantile(ends, self.schedule)
        if self.time_shift is not None:  # which may round a time just below 1 to 1
            times = torch.stack([times[0], torch.ones_like(times[1])])
        nothing = over_latents(torch.zeros_like(times))
        weights = self.loss_weight(self.add_noise(nothing, nothing, times), self.parameterization, self.schedule)
        for t, weight in zip(map(float, times), map(float, weights), strict=True):
            if not math.isfinite(weight):
                raise ValueError(
                    f"loss_weight={self.loss_weight}: is {weight} at t={t:.3g}, which "
                    f"noise_levels={self.noise_levels} may draw; choose noise levels that end before (Uniform has "
                    "t_min), another weight, or a schedule with bounded log-SNR"
                )
