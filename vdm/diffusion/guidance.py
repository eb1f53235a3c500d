"""Guidance: from conditional and unconditional denoising to one denoising function for the sampler."""

from dataclasses import dataclass
from typing import Protocol

from vdm.diffusion.denoiser import Denoise, Denoiser
from vdm.diffusion.parameterizations import Latents, Level
from vdm.types import Conditioning


class Guidance(Protocol):
    """A way to strengthen a condition."""

    def __call__(self, denoiser: Denoiser, condition: Conditioning, unconditional: Conditioning) -> Denoise:
        """Return the guided denoising function."""
        ...


@dataclass(frozen=True)
class ClassifierFree:
    """``x0 = uncond + scale (cond - uncond)`` (Ho & Salimans 2022, eq. 6; in x0, which is the same as in eps).

    Args:
        scale: 1 follows the condition as trained, above 1 more strongly, 0 ignores it.
    """

    scale: float = 1.0

    def __call__(self, denoiser: Denoiser, condition: Conditioning, unconditional: Conditioning) -> Denoise:
        """Return the guided denoising function."""

        def denoise(xt: Latents, alpha: Level, sigma: Level) -> Latents:
            if self.scale == 0:
                return denoiser(xt, alpha, sigma, unconditional)
            conditional = denoiser(xt, alpha, sigma, condition)
            if self.scale == 1:
                return conditional
            baseline = denoiser(xt, alpha, sigma, unconditional)
            # Guidance leaves the data's range, which would saturate the frames of the next steps.
            return denoiser.clipped(baseline + self.scale * (conditional - baseline))

        return denoise
