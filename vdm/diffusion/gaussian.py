"""The diffusion of latents: adding noise, and the loss of a prediction."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.loss_weights import LossWeight
from vdm.diffusion.noise_levels import NoiseLevels
from vdm.diffusion.parameterizations import Latents, Parameterization, per_clip
from vdm.diffusion.schedules import NoiseSchedule
from vdm.types import NoisedLatents


@dataclass(frozen=True)
class GaussianDiffusion:
    """The four choices that make a diffusion model, apart from its network.

    Args:
        schedule: Signal and noise at each time.
        parameterization: What the network predicts.
        noise_levels: Which times are trained on.
        loss_weight: How much each noise level counts.
        clip_denoised: Bound of the absolute value of denoised latents while sampling: 1 for pixels, none for latents
            that are not bounded.
    """

    schedule: NoiseSchedule
    parameterization: Parameterization
    noise_levels: NoiseLevels
    loss_weight: LossWeight
    clip_denoised: float | None = None

    def add_noise(self, x0: Latents, noise: Latents, t: Float[Tensor, " b"]) -> NoisedLatents:
        """Noise clean latents to each clip's time ``t``: ``xt = alpha_t x0 + sigma_t noise``."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        return NoisedLatents(x0, noise, per_clip(alpha) * x0 + per_clip(sigma) * noise, t, alpha, sigma)

    def loss(self, prediction: Latents, noised: NoisedLatents) -> Float[Tensor, " b"]:
        """Return each clip's weighted mean squared error, in fp32."""
        target = self.parameterization.target(noised.x0, noised.noise, noised.alpha, noised.sigma)
        error = ((prediction.float() - target) ** 2).flatten(1).mean(1)
        return error * self.loss_weight(noised.alpha, noised.sigma, self.parameterization)
