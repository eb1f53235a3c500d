"""Sampling that is consistent with an observation, such as given frames (inpainting in time) or a lower resolution.

An observation of clean latents is ``y = A x0`` with a linear operator ``A``. Selecting frames gives extension in time
and interpolation between frames; means over squares of pixels give super-resolution. Each method below conditions a
denoising function on ``y``, and works with every schedule, parameterization, guidance and sampler.

**Replacement** (Song et al. 2021, section 5 and appendix I) replaces the observed part of the prediction by ``y``:
``x0 + A^+ (y - A x0)``. The observed part of the noised latents is then ``A xt = alpha_t y + sigma_t n``.

- Deterministic samplers that are exact for constant x0 (DDIM, Euler and Heun in ``sigma / alpha``, DPM-Solver++, UniPC)
  keep ``n = A noise`` over all steps, up to the signal ``alpha_1 y``, which the noise at ``t = 1`` does not contain.
  The observed part of ``xt`` is the noised observation. A solver of the ODE in another variable keeps it to its
  tolerance.
- Samplers that draw from ``q(xs | xt, x0)`` or with that marginal (DDPM with ``gamma = 0``, DDIM with any ``eta``)
  change ``n`` in each step and keep its distribution ``N(0, A A^T)``. The observed part is drawn from ``q(xs | xt,
  x0)`` given the observation, one of the two forms of replacement in Ho et al. 2022 (section 3.1). With more noise
  (``gamma > 0``), or with finite steps of a stochastic differential equation, this holds approximately.

The unobserved part of the prediction is still ``E[x0 | xt]`` instead of ``E[x0 | xt, y]``. Replacement therefore does
not become exact with more steps, and the generated part may not be coherent with the observed one.

**Reconstruction guidance** (Ho et al. 2022, section 3.1) approximates the missing difference between the two.

**Clean frames** are for models that were trained with clean frames beside noised ones. The network gets the known
frames without noise, and predicts ``E[x0 | xt, y]`` itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.frame_levels import after_reference, clean_where_known
from vdm.diffusion.shapes import Latents, Level, over_latents
from vdm.types import TensorRecord

Observed = Float[Tensor, "b c n h2 w2"]


class Operator(Protocol):
    """A linear map ``A`` of clean latents with independent rows, the same for all clips."""

    def __call__(self, x0: Latents) -> Observed:
        """Return ``A x0``."""
        ...

    def pseudo_inverse(self, y: Observed) -> Latents:
        """Return ``A^+ y = A^T (A A^T)^-1 y``, the latents of least norm whose observation is ``y``."""
        ...


@dataclass(frozen=True)
class Frames:
    """Observes some frames of a clip, at full or lower resolution.

    Args:
        indices: Indices of the observed frames, without repetition.
        num_frames: Number of frames of the clip.
        factor: Downsampling factor: means over squares of this height and width are observed. 1 for full resolution.
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
        """Select the frames, and average over squares."""
        frames = x0[:, :, list(self.indices)]
        return rearrange(frames, "b c n (h p) (w q) -> b c n h w (p q)", p=self.factor, q=self.factor).mean(-1)

    def pseudo_inverse(self, y: Observed) -> Latents:
        """Repeat each value over its square; other frames are 0."""
        frames = repeat(y, "b c n h w -> b c n (h p) (w q)", p=self.factor, q=self.factor)
        x0 = frames.new_zeros(*frames.shape[:2], self.num_frames, *frames.shape[3:])
        x0[:, :, list(self.indices)] = frames
        return x0


@dataclass(frozen=True)
class Observation(TensorRecord):
    """An observation ``y = A x0`` of each clip."""

    y: Observed
    operator: Operator

    def residual(self, x0: Latents) -> Latents:
        """Return ``A^+ (y - A x0)``, the smallest change of ``x0`` that makes it consistent with the observation."""
        return self.operator.pseudo_inverse(self.y - self.operator(x0))


class ObservationMethod(Protocol):
    """Conditions a denoising function on observations."""

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function.

        Args:
            denoise: The model, including conditions and guidance, preferably before ``bounded``.
            observations: Any number of independent observations, such as of different frames: ``A_i A_j^+ = 0``.
        """
        ...


@dataclass(frozen=True)
class Replacement:
    """Replaces the observed part of x0 by the observation; see the module's documentation."""

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function."""

        def replaced(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            denoised = denoise(xt, alpha, sigma)
            return replace(denoised, x0=denoised.x0 + _residual(denoised.x0, observations))

        return replaced


@dataclass(frozen=True)
class CleanFrames:
    """Gives the network the known frames without noise, at noise level 0, in every step.

    For models that were trained with a noise level a frame: with ``KnownFramesClean`` for the frames that were known in
    training, with ``IndependentFrames`` (diffusion forcing, Chen et al. 2024) for any. Works with every sampler, since
    the known frames of x0 are the given ones.
    """

    def __call__(self, denoise: Denoise, observations: Sequence[Observation]) -> Denoise:
        """Return the denoising function.

        Raises:
            ValueError: If an observation is not of whole frames at full resolution.
        """
        frames: list[int] = []
        for operator in (observation.operator for observation in observations):
            if not isinstance(operator, Frames) or operator.factor != 1:
                raise ValueError(f"clean frames: observations must be of whole frames, but one is {operator}")
            frames += operator.indices
        given = torch.stack([observation.operator.pseudo_inverse(observation.y) for observation in observations]).sum(0)
        is_known = torch.zeros(given.shape[0], given.shape[2], dtype=torch.bool, device=given.device)
        is_known[:, frames] = True

        def conditioned(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
            denoised = denoise(*clean_where_known(xt, alpha, sigma, given, is_known))
            return replace(denoised, x0=torch.where(is_known[:, None, :, None, None], given.to(xt), denoised.x0))

        return conditioned


def denoise_after(denoise: Denoise, reference: Latents) -> Denoise:
    """Return a denoising function whose network also gets the clean latents of a reference clip, before the others."""

    def denoise_rest(xt: Latents, alpha: Level, sigma: Level) -> Denoised:
        denoised, number = denoise(*after_reference(reference, xt, alpha, sigma)), reference.shape[2]
        share = denoised.variance_share
        return Denoised(denoised.x0[:, :, number:], None if share is None else share[:, :, number:])

    return denoise_rest


@dataclass(frozen=True)
class ReconstructionGuidance:
    """Reconstruction guidance: ``x0 - (scale alpha / 2) grad_xt |A^+ (y - A x0(xt))|^2``, then replacement.

    Ho et al. 2022, eq. 7 and the equation after it. Exactly, ``E[x0 | xt, y] = E[x0 | xt] + (sigma^2 / alpha) grad_xt
    log q(y | xt)``. The paper approximates ``q(x0 | xt)`` by a normal distribution of variance ``sigma^2 / alpha^2``,
    so that ``y`` has covariance ``sigma^2 / alpha^2 A A^T``; this is where ``A^+`` comes from.

    For frames at full resolution, ``A^+`` has no effect and this is the paper's method, which replaces the observed
    frames too. For super-resolution by ``factor`` there are two differences. ``A^+`` accounts for the smaller variance
    of means, so that one scale suits all factors; the paper's weight is ``factor^2`` times this scale. And the observed
    part is replaced here too, since ``A E[x0 | xt, y] = y`` holds exactly.

    The gradient is computed by backpropagation through the network. A call takes about twice as long as without it, and
    needs the memory for the activations of one training step, or of two with guidance; parameters that do not require
    gradients save some of it. The derivation assumes independent noise; for other noise priors it is a further
    approximation.

    Args:
        scale: ``w_r``. The paper's normal distribution is too wide at high noise levels, which a scale above 1
            compensates. With the exact denoiser of a Gaussian process, 2 to 4 are closest to the conditional
            distribution. Large scales are unstable, at lower values in super-resolution. The paper uses 9 (Kinetics)
            and 50 (BAIR).
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
    """Return the smallest change of ``x0`` that makes it consistent with all observations."""
    return torch.stack([observation.residual(x0) for observation in observations]).sum(0)
