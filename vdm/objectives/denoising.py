"""The denoising objective of diffusion models."""

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.base import Losses
from vdm.objectives.batch_randomness import BatchRandomness
from vdm.objectives.latents import LatentBatch


class Denoising:
    """Add noise of a random level to latents, drop conditions at random, predict, and compare (Ho et al. 2020, eq. 14).

    The model's ``diffusion`` determines the noise levels, the prediction and the weights of the loss.
    """

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip."""
        x0, shape = latents.x0, tuple(latents.x0.shape[1:])
        noise = randomness.noise(model.diffusion.noise_prior, shape, latents.num_images).to(x0, non_blocking=True)
        times = randomness.times(model.diffusion, shape, latents.num_images).to(x0.device, non_blocking=True)
        prompts = randomness.drop_conditions(latents.prompts)
        image_prompts = None if latents.image_prompts is None else randomness.drop_conditions(latents.image_prompts)
        loss = model.denoising_loss(x0, noise, times.t.to(x0.dtype), prompts, image_prompts, times.counted)
        return Losses(loss, times.of_clips)
