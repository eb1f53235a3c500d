"""An objective of a user's own, from outside the package: it brings a frozen reference and a second network."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.optim import Optimizer

from vdm.assembly.model import VideoDiffusionModel
from vdm.objectives.base import Losses, ObjectiveWithModules
from vdm.objectives.batch_randomness import BatchRandomness
from vdm.objectives.latents import LatentBatch
from vdm.ranges import NotNegative


class NearReference(ObjectiveWithModules):
    """Denoises, stays near the model that training started from, and learns to foretell its own loss.

    Args:
        model: What is trained; the reference is a copy of it.
        weight: Weight of the squared distance between the predictions of the model and of the reference.
        optimizer: Makes the optimizer of the network that foretells; none trains it by the model's.
    """

    def __init__(
        self, model: VideoDiffusionModel, weight: NotNegative = 0.5, optimizer: Callable[..., Optimizer] | None = None
    ) -> None:
        super().__init__()
        self.reference = deepcopy(model).requires_grad_(False)
        self.foretell = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))
        self.weight = weight
        self.make_optimizer = optimizer

    def forward(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip."""
        x0, shape = latents.x0, tuple(latents.x0.shape[1:])
        noise = randomness.noise(model.diffusion.noise_prior, shape).to(x0)
        times = randomness.times(model.diffusion, shape).to(x0.device)
        prompts = randomness.drop_conditions(latents.prompts)
        noised = model.diffusion.add_noise(x0, noise, times.t)
        output = model.predict(noised, prompts)
        with torch.no_grad():
            wanted = self.reference.predict(noised, prompts)
        distance = (output - wanted).float().square().flatten(1).mean(1)
        loss = model.diffusion.loss(output, noised) + self.weight * distance
        foretold = (self.foretell(times.of_clips[:, None])[:, 0] - loss.detach()).square()
        return Losses(loss + foretold, times.of_clips, {"distance": distance, "foretold": foretold})


class KeepsReference:
    """Keeps a copy of the model where no checkpoint holds it.

    Args:
        model: What is trained.
    """

    def __init__(self, model: VideoDiffusionModel) -> None:
        self.references = [deepcopy(model)]

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Not called: it is refused."""
        raise AssertionError


class KeepsModel:
    """Keeps the model itself, whose weights are in the checkpoint.

    Args:
        model: What is trained.
    """

    def __init__(self, model: VideoDiffusionModel) -> None:
        self.parts = {"whole": model, "network": model.network}

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Not called."""
        raise AssertionError
