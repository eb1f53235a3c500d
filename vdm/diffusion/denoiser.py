"""From a network's raw output to denoised latents."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.parameterizations import Latents, Level, Parameterization, per_clip
from vdm.types import Conditioning


class Network(Protocol):
    """What the mathematics asks of a network."""

    def __call__(
        self, xt: Latents, c_noise: Float[Tensor, " b"], condition: Conditioning, num_images: int = 0
    ) -> Latents:
        """Return the raw prediction for noised latents, the last ``num_images`` frames being independent images."""
        ...


class Denoise(Protocol):
    """What a sampler calls: the clean latents expected behind noised ones; conditions and guidance are inside."""

    def __call__(self, xt: Latents, alpha: Level, sigma: Level) -> Latents:
        """Return the denoised latents."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """A network made into a function that denoises.

    Args:
        network: The network.
        parameterization: What the network predicts.
        clip: Bound of the denoised latents' absolute value, none for no bound.
    """

    network: Network
    parameterization: Parameterization
    clip: float | None = None

    def predict(self, xt: Latents, alpha: Level, sigma: Level, condition: Conditioning, num_images: int = 0) -> Latents:
        """Return the network's raw output for noised latents."""
        c_in, c_noise = self.parameterization.c_in(alpha, sigma), self.parameterization.c_noise(alpha, sigma)
        return self.network(per_clip(c_in) * xt, c_noise, condition, num_images)

    def __call__(self, xt: Latents, alpha: Level, sigma: Level, condition: Conditioning) -> Latents:
        """Return the denoised latents in fp32 (or float64, if ``xt`` is), bounded by ``clip``."""
        prediction = self.predict(xt, alpha, sigma, condition).to(xt.dtype)
        return self.clipped(self.parameterization.x0(prediction, xt, alpha, sigma))

    def clipped(self, x0: Latents) -> Latents:
        """Bound denoised latents."""
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)
