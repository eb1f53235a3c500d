"""From a network's raw output to denoised latents."""

from dataclasses import dataclass, replace
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.parameterizations import Parameterization
from vdm.diffusion.shapes import Latents, Level, Output, per_clip
from vdm.types import Conditioning


class Network(Protocol):
    """What the mathematics asks of a network."""

    def __call__(
        self, xt: Latents, c_noise: Float[Tensor, " b"], condition: Conditioning, num_images: int = 0
    ) -> Output:
        """Return the raw prediction for noised latents, the last ``num_images`` frames being independent images."""
        ...


@dataclass(frozen=True)
class Denoised:
    """What a model says about noised latents."""

    x0: Latents
    """The clean latents expected."""
    variance_share: Latents | None = None
    """Where the model has learned it: how far log-variance of a step back lies from that of the posterior given x0 (0)
    towards that of the forward step (1)."""


class Denoise(Protocol):
    """What a sampler calls; conditions and guidance are inside."""

    def __call__(self, xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        """Return the denoised latents."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """A network made into a function that denoises.

    Args:
        network: The network.
        parameterization: What the network predicts.
        clip: Bound of the denoised latents' absolute value, none for no bound.
        learned_variance: How the network tells variances, none where it does not.
    """

    network: Network
    parameterization: Parameterization
    clip: float | None = None
    learned_variance: LearnedVariance | None = None

    def predict(self, xt: Latents, alpha: Level, sigma: Level, condition: Conditioning, num_images: int = 0) -> Output:
        """Return the network's raw output for noised latents."""
        c_in, c_noise = self.parameterization.c_in(alpha, sigma), self.parameterization.c_noise(alpha, sigma)
        return self.network(per_clip(c_in) * xt, c_noise, condition, num_images)

    def __call__(self, xt: Latents, alpha: Level, sigma: Level, condition: Conditioning) -> Denoised:
        """Return the denoised latents in fp32 (or float64, if ``xt`` is), bounded by ``clip``."""
        output, share = self.predict(xt, alpha, sigma, condition).to(xt.dtype), None
        if self.learned_variance is not None:
            output, share = self.learned_variance.split(output, xt.shape[1])
        return Denoised(self.clipped(self.parameterization.x0(output, xt, alpha, sigma)), share)

    def clipped(self, x0: Latents) -> Latents:
        """Bound denoised latents."""
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)


def bounded(denoise: Denoise, clip: float | None) -> Denoise:
    """Bound what a denoising function returns, whatever is inside it; ``None`` is no bound.

    Guidance leaves the data's range, which would saturate the frames of the next steps.
    """
    if clip is None:
        return denoise

    def clipped(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        denoised = denoise(xt, alpha, sigma)
        return replace(denoised, x0=denoised.x0.clamp(-clip, clip))

    return clipped
