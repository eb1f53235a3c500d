"""Denoising with a network: from its raw output to denoised latents."""

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.parameterizations import Parameterization
from vdm.diffusion.shapes import Latents, Level, Output, over_latents
from vdm.types import Conditioning


class Network(Protocol):
    """Interface of a network."""

    def __call__(self, xt: Latents, c_noise: Level, condition: Conditioning, num_images: int = 0) -> Output:
        """Return the raw prediction for noised latents, the last ``num_images`` frames being independent images.

        Raises:
            ValueError: If there is one noise level a frame and the network does not support that.
        """
        ...


@dataclass(frozen=True)
class Denoised:
    """Prediction of a model for noised latents."""

    x0: Latents
    """Predicted clean latents."""
    variance_share: Latents | None = None
    """Learned log-variance of a reverse step, interpolated from that of the posterior given x0 (0) to that of the
    forward step (1). None if the model does not learn it."""


class Denoise(Protocol):
    """A denoising function, as samplers call it, including conditions and guidance."""

    def __call__(self, xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        """Return the denoised latents."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """A denoising function that calls a network.

    Args:
        network: The network.
        parameterization: Parameterization of the network's prediction.
        learned_variance: Interpretation of the output channels for variances. None if the network has no such channels.
    """

    network: Network
    parameterization: Parameterization
    learned_variance: LearnedVariance | None = None

    def predict(self, xt: Latents, alpha: Level, sigma: Level, condition: Conditioning, num_images: int = 0) -> Output:
        """Return the network's raw output for noised latents.

        Raises:
            ValueError: If the network does not return latents of the size that it was given.
        """
        c_in, c_noise = self.parameterization.c_in(alpha, sigma), self.parameterization.c_noise(alpha, sigma)
        output = self.network(over_latents(c_in) * xt, c_noise, condition, num_images)
        _check_output(output, xt, type(self.network).__name__)
        return output

    def __call__(self, xt: Latents, alpha: Level, sigma: Level, condition: Conditioning) -> Denoised:
        """Return the denoised latents in fp32 (or float64, if ``xt`` is), not yet bounded."""
        output, share = self.predict(xt, alpha, sigma, condition).to(xt.dtype), None
        if self.learned_variance is not None:
            output, share = self.learned_variance.split(output, xt.shape[1])
        return Denoised(self.parameterization.x0(output, xt, alpha, sigma), share)


def _check_output(output: object, xt: Latents, network: str) -> None:
    """Refuse wrong outputs, which a user's own network may return."""
    b, _, *size = xt.shape
    if isinstance(output, Tensor):
        if output.ndim == xt.ndim and [output.shape[0], *output.shape[2:]] == [b, *size]:
            return
        found = f"the shape {tuple(output.shape)}"
    else:
        found = type(output).__name__
    wanted = ", ".join(map(str, [b, "out_channels", *size]))
    raise ValueError(f"model.network: {network} returned {found}; its forward must return a tensor of shape ({wanted})")


def bounded(denoise: Denoise, clip: float | None) -> Denoise:
    """Clip the x0 of a denoising function to ``[-clip, clip]``; ``None`` for no clipping.

    This must be applied after guidance and observations. Their results can exceed the range of the data, but they need
    the unclipped predictions as input.
    """
    if clip is None:
        return denoise

    def clipped(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        denoised = denoise(xt, alpha, sigma)
        return replace(denoised, x0=denoised.x0.clamp(-clip, clip))

    return clipped
