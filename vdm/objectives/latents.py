"""Encoding a batch of clips to latents and prompts, the input of an objective."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.batch_randomness import BatchRandomness
from vdm.prompts import Prompts, TensorCondition
from vdm.types import ClipBatch, TensorRecord


@dataclass(frozen=True)
class LatentBatch(TensorRecord):
    """Latents and prompts of a batch of clips."""

    x0: Float[Tensor, "b c t h w"]
    """Clean latents: the latent frames of the clip, then one for each of its ``k`` independent images."""
    prompts: Prompts
    """Prompts of the ``b`` clips."""
    image_prompts: Prompts | None = None
    """Prompts of the ``b k`` images; the images of a clip are adjacent. None without images."""

    @property
    def num_images(self) -> int:
        """Number of independent images with each clip, ``k``."""
        return 0 if self.image_prompts is None else len(self.image_prompts) // len(self.prompts)


def latents_of(model: VideoDiffusionModel, batch: ClipBatch, randomness: BatchRandomness) -> LatentBatch:
    """Encode clips and their independent images, and make their prompts.

    Args:
        model: The model, with its autoencoder and conditioner.
        batch: The clips, on the model's device.
        randomness: Source of random numbers for conditions.
    """
    x0 = model.encoder.encode(batch.video) if batch.latents is None else batch.latents.float()
    prompts = model.conditioner.of_clips(batch, x0, model.encoder, randomness.seed, randomness.clip_ids)
    if batch.images is None:
        return LatentBatch(x0, prompts)
    images = model.encoder.encode(rearrange(batch.images.pixels, "b c k h w -> (b k) c 1 h w"))
    x0 = torch.cat([x0, rearrange(images, "(b k) c 1 h w -> b c k h w", b=len(batch))], dim=2)
    captions = tuple(caption for of_clip in batch.images.captions for caption in of_clip)
    image_prompts = Prompts.of(captions, rearrange(batch.images.labels, "b k -> (b k)"))
    if batch.images.crops is not None:
        crops = TensorCondition(rearrange(batch.images.crops, "b k n -> (b k) n"))
        image_prompts = image_prompts.with_conditions(crops=crops)
    return LatentBatch(x0, prompts, image_prompts)


@torch.no_grad()
def pixels_of(model: VideoDiffusionModel, batch: ClipBatch) -> UInt8[Tensor, "b c t h w"]:
    """Return the frames of clips; of clips that are stored as latents, as the autoencoder decodes them."""
    if batch.latents is None:
        return batch.video
    return torch.cat([model.encoder.decode(latents[None].float()) for latents in batch.latents])
