"""Bits per dimension of held-out clips under a model of pixels."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from vdm import randomness
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.denoiser import bounded
from vdm.diffusion.likelihood.base import Likelihood
from vdm.diffusion.noise_priors import Independent
from vdm.models.autoencoder import PixelAutoencoder
from vdm.objectives.batch_randomness import HeldOutRandomness
from vdm.objectives.latents import latents_of
from vdm.types import ClipBatch


@dataclass(frozen=True)
class BitsPerDim:
    """The mean over clips, and the protocol by which it was measured."""

    mean: float
    standard_error: float | None
    """Standard error of the mean over clips; None for a single clip."""
    num_clips: int
    protocol: str


def check(model: VideoDiffusionModel) -> None:
    """Refuse models that define no likelihood of pixels.

    Raises:
        ValueError: If the model diffuses latents, or its noise is not independent.
    """
    if not isinstance(model.encoder, PixelAutoencoder):
        raise ValueError(
            f"bits_per_dim: pixels have no likelihood under a model of the latents of {type(model.encoder).__name__}: "
            "choose bits_per_dim=none"
        )
    if not isinstance(model.diffusion.noise_prior, Independent):
        raise ValueError(
            f"bits_per_dim: known for independent noise alone, not for {model.diffusion.noise_prior}: "
            "choose bits_per_dim=none"
        )


@torch.no_grad()
def bits_per_dim(
    model: VideoDiffusionModel,
    batches: Iterable[ClipBatch],
    likelihood: Likelihood,
    seed: int = 0,
    on_step: Callable[[], object] | None = None,
) -> BitsPerDim:
    """Return the bits per dimension of clips under their own conditions, without guidance, as the model was trained.

    Args:
        model: A model that ``check`` accepts.
        batches: Held-out clips; random numbers are functions of their keys.
        likelihood: The estimator of the likelihood.
        seed: Seed of the noise.
        on_step: Called after each step of the estimator, for each batch.
    """
    found = [_of_batch(model, batch, likelihood, seed, on_step) for batch in batches]
    values = torch.cat(found)
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    conditions = "captions, classes and first frames given where the model has them, no guidance"
    return BitsPerDim(values.mean().item(), error, len(values), f"{likelihood}; 8-bit RGB; {conditions}; seed {seed}")


def _of_batch(
    model: VideoDiffusionModel,
    batch: ClipBatch,
    likelihood: Likelihood,
    seed: int,
    on_step: Callable[[], object] | None,
) -> torch.Tensor:
    latents = latents_of(model, batch.to(model.device), HeldOutRandomness(batch.keys, seed=seed))
    x0 = latents.x0
    denoise = bounded(model.conditioned(latents.prompts, x0.shape[2]), model.diffusion.clip_denoised)

    def draw_noise(number: int) -> torch.Tensor:
        return randomness.normal(seed, f"likelihood noise {number}", batch.keys, tuple(x0.shape[1:])).to(x0)

    return likelihood(denoise, x0, model.diffusion.schedule, draw_noise, on_step)
