"""An objective: the absolute error of the predicted clean latents."""

from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.base import Losses
from vdm.objectives.batch_randomness import BatchRandomness
from vdm.objectives.latents import LatentBatch


class AbsoluteError:
    """Noises latents to a drawn level, and compares what the model makes of them with what they were."""

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip."""
        shape = tuple(latents.x0.shape[1:])
        noise = randomness.noise(model.diffusion.noise_prior, shape).to(latents.x0)
        times = randomness.times(model.diffusion, shape).to(latents.x0.device)
        noised = model.diffusion.add_noise(latents.x0, noise, times.t)
        output = model.predict(noised, randomness.drop_conditions(latents.prompts))
        x0: Tensor = model.diffusion.parameterization.x0(output, noised.xt, noised.alpha, noised.sigma)
        return Losses((x0 - latents.x0).abs().flatten(1).mean(1), times.of_clips)
