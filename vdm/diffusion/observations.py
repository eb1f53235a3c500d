"""Samples that agree with an observation, from a model that was trained without any.

What is observed of clean latents is ``y = A x0``, with a linear operator ``A``: some frames, for extending a video in
time and for interpolating between frames; means of squares of pixels, for super-resolution. Two methods turn a
denoising function into one that knows ``y``; they go with every schedule, parameterization, guidance and sampler.

**Replacement** (Song et al. 2021, section 5 and appendix I) puts ``y`` in the place of what the model says of it:
``x0 + A^+ (y - A x0)``. The sampler's own noise then stays with the observed part: ``A xt = alpha_t y + sigma_t n``.

- A deterministic sampler that is exact where x0 does not change (DDIM, Euler and Heun in ``sigma / alpha``,
  DPM-Solver++, UniPC) keeps one and the same ``n = A noise``, up to the signal ``alpha_1 y`` that noise at ``t = 1``
  lacks: the observed part of ``xt`` is the observation, noised. A solver of the ODE in another variable keeps it to its
  own tolerance.
- A sampler that draws from ``q(xs | xt, x0)`` or with that marginal (DDPM with ``gamma = 0``, DDIM with any ``eta``)
  changes ``n`` from step to step and keeps its distribution ``N(0, A A^T)``: the observed part is drawn from
  ``q(xs | xt, x0)`` given the observation, one of the two forms of replacement in Ho et al. 2022 (section 3.1). With
  more noise than that (``gamma > 0``), or with a finite step of a stochastic differential equation, it is so nearly.

The rest of ``x0`` is still ``E[x0 | xt]``, where ``E[x0 | xt, y]`` is needed: replacement does not become exact with
more steps, and what it makes does not hang together with what is observed.

**Reconstruction guidance** (Ho et al. 2022, section 3.1) adds an estimate of what is missing.

**Clean frames** are for models that were trained with clean frames beside noised ones: the network sees what is known
as it is, and says ``E[x0 | xt, y]`` itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.shapes import Latents, Level, over_latents, per_frame
from vdm.types import TensorRecord

Observed = Float[Tensor, "b c n h2 w2"]


class Operator(Protocol):
    """A linear map ``A`` of clean latents with independent rows, the same for all clips."""

    def __call__(self, x0: Latents) -> Observed:
        """Return ``A x0``."""
        ...

    def pseudo_inverse(self, y: Observed) -> Latents:
        """Return ``A^+ y = A^T (A A^T)^-1 y``, the smallest latents that are observed as ``y``."""
        ...


@dataclass(frozen=True)
class Frames:
    """Some frames of a clip, as they are or in a lower resolution.

    Args:
        indices: Which frames, each once.
        num_frames: Frames of the whole clip.
        factor: Height and width of the squares whose mean is observed; 1 for the frames as they are.
    """

    indices: tuple[int, ...]
    num_frames: int
    factor: int = 1

    def __post_init__(self) -> None:
        if len(set(self.indices)) < len(self.indices) or not set(self.indices) <= set(range(self.num_frames)):
            raise ValueError(
                f"indices must be different frames from 0 to {self.num_frames - 1}, but are {list(self.indices)}"
            )
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, but is {self.factor}")

    def __call__(self, x0: Latents) -> Observed:
        """Select frames, and average."""
        frames = x0[:, :, list(self.indices)]
        return rearrange(frames, "b c n (h p) (w q) -> b c n h w (p q)", p=self.factor, q=self.factor).mean(-1)

    def pseudo_inverse(self, y: Observed) -> Latents:
        """Repeat pixels, and leave the other frames 0."""
        frames = repeat(y, "b c n h w -> b c n (h p) (w q)", p=self.factor, q=self.factor)
        x0 = frames.new_zeros(*frames.shape[:2], self.num_frames, *frames.shape[3:])
        x0[:, :, list(self.indices)] = frames
        return x0


@dataclass(frozen=True)
class Observation(TensorRecord):
    """What is known of each clip: ``y = A x0``."""

    y: Observed
    operator: Operator

    def residual(self, x0: Latents) -> Latents:
        """Return ``A^+ (y - A x0)``, the smallest change to ``x0`` that makes it agree."""
        return self.operator.pseudo_inverse(self.y - self.operator(x0))


class ObservationMethod(Protocol):
    """A way to make a denoising function know observations."""

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function.

        Args:
            denoise: The model, with conditions and guidance inside, its x0 best not yet bounded.
            observations: Any number, of different frames or otherwise independent: ``A_i A_j^+ = 0``.
        """
        ...


@dataclass(frozen=True)
class Replacement:
    """The observed part of x0 is what was observed."""

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function."""

        def replaced(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            denoised = denoise(xt, alpha, sigma)
            return replace(denoised, x0=denoised.x0 + _residual(denoised.x0, observations))

        return replaced


@dataclass(frozen=True)
class CleanFrames:
    """The network is given the frames that are known without noise, with noise levels of their own, in every step.

    For models trained with a noise level a frame: with ``CleanPrefix`` for first frames, with ``IndependentFrames``
    (diffusion forcing, Chen et al. 2024) for any. Works with every sampler, as the known part of x0 is what is known.
    """

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function.

        Raises:
            ValueError: If something else than whole frames is known.
        """
        frames: list[int] = []
        for operator in (observation.operator for observation in observations):
            if not isinstance(operator, Frames) or operator.factor != 1:
                raise ValueError(f"clean frames: what is known must be whole frames, but is {operator}")
            frames += operator.indices
        given = torch.stack([observation.operator.pseudo_inverse(observation.y) for observation in observations]).sum(0)
        is_known = torch.zeros(given.shape[2], dtype=torch.bool, device=given.device)
        is_known[frames] = True

        def told(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            alpha = torch.where(is_known, 1, per_frame(alpha, xt.shape[2]))
            sigma = torch.where(is_known, 0, per_frame(sigma, xt.shape[2]))
            denoised = denoise(torch.where(is_known[:, None, None], given.to(xt), xt), alpha, sigma)
            return replace(denoised, x0=torch.where(is_known[:, None, None], given.to(xt), denoised.x0))

        return told


@dataclass(frozen=True)
class ReconstructionGuidance:
    """Reconstruction guidance: ``x0 - (scale alpha / 2) grad_xt |A^+ (y - A x0(xt))|^2``, then replacement.

    Ho et al. 2022, eq. 7 and the equation after it. Exactly, ``E[x0 | xt, y] = E[x0 | xt] + (sigma^2 / alpha) grad_xt
    log q(y | xt)``; the paper takes ``q(x0 | xt)`` for a normal distribution of variance ``sigma^2 / alpha^2``, which
    makes that of ``y`` ``sigma^2 / alpha^2 A A^T``, hence the ``A^+``. For frames as they are, ``A^+`` changes
    nothing and this is the paper's method, which replaces the observed frames too. For super-resolution by ``factor``
    it makes up for means of many pixels having less variance, so that one scale serves all factors (the paper's
    weight is ``factor^2`` times this scale), and replacement, which the paper leaves out there, holds what is true of
    ``E[x0 | xt, y]`` as well: ``A E[x0 | xt, y] = y``.

    The gradient runs back through the network: a call takes about twice as long as without, and holds the activations
    of a training step, of two with guidance. Parameters that require no gradients save some of that. Noise is taken to
    be independent; for a prior that correlates it, the gradient is one more approximation.

    Args:
        scale: ``w_r``. The paper's approximation is too wide where there is much noise, and a scale above 1 makes up
            for it; with the perfect denoiser of a Gaussian process, 2 to 4 come nearest to the conditional
            distribution. Too much is unstable, sooner in super-resolution. The paper has 9 (Kinetics) and 50 (BAIR).
    """

    scale: float = 4.0

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"scale must be >= 0, but is {self.scale}")

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function; it works under ``torch.no_grad``, not under ``torch.inference_mode``."""

        def guided(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            with torch.enable_grad():
                variable = xt.detach().requires_grad_()
                denoised = denoise(variable, alpha, sigma)
                error = _residual(denoised.x0, observations).square().sum()
                (gradient,) = torch.autograd.grad(error, variable)
            x0 = denoised.x0.detach() - over_latents(self.scale * alpha / 2) * gradient
            share = denoised.variance_share
            return Denoised(x0 + _residual(x0, observations), None if share is None else share.detach())

        return guided


def _residual(x0: Latents, observations: Sequence[Observation]) -> Latents:
    """Return the smallest change to ``x0`` that makes it agree with all."""
    return torch.stack([observation.residual(x0) for observation in observations]).sum(0)
