"""The diffusion of latents: adding noise, and the loss of a prediction."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from vdm.diffusion.distances import Distance, SquaredError
from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.loss_weights import LossWeight
from vdm.diffusion.noise_levels import NoiseLevels
from vdm.diffusion.noise_priors import Independent, NoisePrior
from vdm.diffusion.parameterizations import Parameterization
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.shapes import Latents, Level, Output, per_clip
from vdm.ranges import Positive
from vdm.types import NoisedLatents


@dataclass(frozen=True)
class GaussianDiffusion:
    """The choices that make a diffusion model, apart from its network.

    Args:
        schedule: Signal and noise at each time.
        parameterization: What the network predicts.
        noise_levels: Which times are trained on.
        loss_weight: How much each noise level counts.
        clip_denoised: Bound of the absolute value of denoised latents while sampling: 1 for pixels, none for latents
            that are not bounded.
        noise_prior: How the noise of a clip hangs together; ``noise`` in ``add_noise`` is drawn from it.
        distance: How a prediction's error is measured.
        learned_variance: How variances of the steps back are learned beside their means; none leaves them fixed.
    """

    schedule: NoiseSchedule
    parameterization: Parameterization
    noise_levels: NoiseLevels
    loss_weight: LossWeight
    clip_denoised: Positive | None = None
    noise_prior: NoisePrior = Independent()
    distance: Distance = SquaredError()
    learned_variance: LearnedVariance | None = None

    def __post_init__(self) -> None:
        if self.clip_denoised is not None and self.clip_denoised <= 0:
            raise ValueError(f"clip_denoised must be > 0, or null for no bound, but is {self.clip_denoised}")
        self._check_prediction_of_pure_noise()
        self._check_weights()

    def out_channels(self, num_channels: int) -> int:
        """Return the channels that the network must output for latents of ``num_channels``."""
        return num_channels if self.learned_variance is None else 2 * num_channels

    def draw_times(self, seed: int, positions: Int[Tensor, " b"], global_batch_size: int) -> Level:
        """Draw the time to train each sample at, as a function of (seed, position)."""
        return self.noise_levels(seed, positions, global_batch_size, self.schedule)

    def add_noise(self, x0: Latents, noise: Latents, t: Level) -> NoisedLatents:
        """Noise clean latents to each clip's time ``t``: ``xt = alpha_t x0 + sigma_t noise``."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        return NoisedLatents(x0, noise, per_clip(alpha) * x0 + per_clip(sigma) * noise, t, alpha, sigma)

    def loss(self, output: Output, noised: NoisedLatents) -> Level:
        """Return the loss of each clip, in fp32, given what the network said."""
        output = output.float()
        if self.learned_variance is None:
            return self._prediction_loss(output, noised)
        prediction, share = self.learned_variance.split(output, noised.x0.shape[1])
        denoised = self.parameterization.x0(prediction, noised.xt, noised.alpha, noised.sigma)
        bound = self.learned_variance.loss(denoised, share, noised, self.schedule)
        return self._prediction_loss(prediction, noised) + bound

    def _prediction_loss(self, prediction: Latents, noised: NoisedLatents) -> Level:
        target = self.parameterization.target(noised.x0, noised.noise, noised.alpha, noised.sigma)
        weight = self.loss_weight(noised, self.parameterization, self.schedule)
        return weight * self.distance(prediction, target)

    def _check_prediction_of_pure_noise(self) -> None:
        """Refuse a parameterization that, where sampling starts, says no more than the noised latents themselves."""
        alpha, sigma = self.schedule.alpha_sigma(torch.ones(1, dtype=torch.float64, device="cpu"))
        a, b = self.parameterization.target_factors(alpha, sigma)
        sine = (a * sigma - b * alpha) / (torch.hypot(a, b) * torch.hypot(alpha, sigma))
        if not abs(float(sine)) > torch.finfo(torch.float32).eps:
            raise ValueError(
                f"parameterization={self.parameterization}: tells nothing about clean latents at t=1, where "
                f"schedule={self.schedule} has alpha={float(alpha):.3g}; choose V, X0, Velocity or EDM"
            )

    def _check_weights(self) -> None:
        """Refuse weights that are not finite at the first or the last time that may be drawn."""
        ends = torch.tensor([0, 1 - 2**-24], dtype=torch.float32, device="cpu")
        times = self.noise_levels.quantile(ends, self.schedule)
        nothing = per_clip(torch.zeros_like(times))
        weights = self.loss_weight(self.add_noise(nothing, nothing, times), self.parameterization, self.schedule)
        for t, weight in zip(map(float, times), map(float, weights), strict=True):
            if not math.isfinite(weight):
                raise ValueError(
                    f"loss_weight={self.loss_weight}: is {weight} at t={t:.3g}, which "
                    f"noise_levels={self.noise_levels} may draw; choose noise levels that end before (Uniform has "
                    "t_min), another weight, or a schedule with bounded log-SNR"
                )
