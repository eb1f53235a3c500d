"""Guidance: extrapolation from a weak prediction through a strong one.

The strong prediction is that of the model with its conditions. The weak prediction determines the method. It comes from
the same model without conditions or with a negative prompt (classifier-free guidance, Ho & Salimans 2022), or from a
smaller or less trained model with the same conditions (autoguidance, Karras et al. 2024).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.parameterizations import V
from vdm.diffusion.shapes import Latents, Level, over_latents
from vdm.ranges import NotNegative, Number, Share


class Guidance(Protocol):
    """Combines a strong and a weak prediction."""

    def __call__(self, strong: Denoise, weak: Denoise) -> Denoise:
        """Return the guided denoising function."""
        ...


@dataclass(frozen=True)
class Extrapolation:
    """``x0 = weak + scale (strong - weak)``.

    Ho & Salimans 2022, eq. 6, with ``scale = 1 + w``. Extrapolating x0 is equivalent to extrapolating the noise or v.

    Args:
        scale: Guidance scale: 1 gives the strong prediction, above 1 extrapolates, 0 gives the weak prediction.
        first_scale: Scale at the first frame; it changes linearly over frames to ``scale`` at the last. None for the
            same scale at all frames. Stable Video Diffusion (Blattmann et al. 2023) goes from 1 to 3, since frames far
            from the given first frame need more guidance.
        interval: Guidance applies at noise levels ``sigma / alpha`` above the first number and up to the second
            (Kynkäänniemi et al. 2024, eq. 6). Elsewhere the result is the strong prediction, and the weak model is not
            called. None for all noise levels.
        rescale: phi of Lin et al. 2023, eq. 14 to 16: rescales the guided prediction to the standard deviation of the
            strong one over the clip; 0 not at all, 1 fully. The paper and diffusers rescale the network's output, which
            is v in the paper; here v is rescaled, whatever the network predicts.
        low_noise_scale: Scale at the noise levels of the expert for low ones, if the network consists of two experts;
            see ``by_expert``. None for the same scale.
    """

    scale: Number = 1.0
    first_scale: Number | None = None
    interval: tuple[NotNegative, NotNegative] | None = None
    rescale: Share = 0.0
    low_noise_scale: Number | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1]:
            raise ValueError(f"interval must be two rising noise levels >= 0, but is {list(self.interval)}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], but is {self.rescale}")

    def __call__(self, strong: Denoise, weak: Denoise) -> Denoise:
        """Return the guided denoising function; learned variances are those of the strong model."""
        if self == Extrapolation(0.0):
            return weak
        if self.scale == 1 and self.first_scale in (None, 1):
            return strong

        def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            denoised = strong(xt, alpha, sigma)
            guided = self._is_guided(alpha, sigma)
            if guided is not None and not bool(guided.any()):
                return denoised
            away_from = weak(xt, alpha, sigma).x0
            x0 = away_from + self._scales(xt) * (denoised.x0 - away_from)
            if self.rescale > 0:
                x0 = self._rescaled(x0, denoised.x0, over_latents(V().c_skip(alpha, sigma)) * xt)
            if guided is not None:
                x0 = torch.where(over_latents(guided), x0, denoised.x0)
            return replace(denoised, x0=x0)

        return denoise

    def _is_guided(self, alpha: Level, sigma: Level) -> Bool[Tensor, "b *frames"] | None:
        """Return which clips or frames have a noise level in the interval; None if there is no interval."""
        if self.interval is None:
            return None
        return (sigma / alpha > self.interval[0]) & (sigma / alpha <= self.interval[1])

    def _scales(self, xt: Latents) -> Float[Tensor, "t 1 1"]:
        first = self.scale if self.first_scale is None else self.first_scale
        return torch.linspace(first, self.scale, xt.shape[2], dtype=xt.dtype, device=xt.device)[:, None, None]

    def _rescaled(self, x0: Latents, strong: Latents, skip: Latents) -> Latents:
        """Rescale v. Since ``x0 = c_skip xt + c_out v``, this scales ``x0 - skip`` with ``skip = c_skip xt``."""
        deviation, guided_deviation = ((x - skip).flatten(1).std(1) for x in (strong, x0))
        factor = self.rescale * deviation / guided_deviation + 1 - self.rescale
        return skip + over_latents(factor) * (x0 - skip)


IsHigh = Callable[[Level, Level], Bool[Tensor, " b"]]
"""Returns which clips belong to the expert for high noise levels, given their ``alpha`` and ``sigma``."""


def by_expert(guidance: Guidance, is_high: IsHigh | None) -> Guidance:
    """Return guidance whose scale depends on the expert, if it has a ``low_noise_scale``.

    Args:
        guidance: The guidance.
        is_high: Tells the noise levels of the experts; None if the network does not consist of two.

    Raises:
        ValueError: If there is a ``low_noise_scale``, but there are no experts.
    """
    if not isinstance(guidance, Extrapolation) or guidance.low_noise_scale is None:
        return guidance
    if is_high is None:
        raise ValueError(
            f"guidance.low_noise_scale={guidance.low_noise_scale:g}: the network does not consist of two experts"
        )
    high = replace(guidance, low_noise_scale=None)
    low = replace(high, scale=guidance.low_noise_scale)

    def of_expert(strong: Denoise, weak: Denoise) -> Denoise:
        high_denoise, low_denoise = high(strong, weak), low(strong, weak)

        def denoise(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            chosen = is_high(alpha, sigma)
            if bool(chosen.all()):
                return high_denoise(xt, alpha, sigma)
            of_low = low_denoise(xt, alpha, sigma)
            if not bool(chosen.any()):
                return of_low
            return replace(of_low, x0=torch.where(over_latents(chosen), high_denoise(xt, alpha, sigma).x0, of_low.x0))

        return denoise

    return of_expert
