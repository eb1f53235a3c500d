"""Interface of a training objective: from latents to a loss per clip."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.shapes import PerClip
from vdm.objectives.batch_randomness import BatchRandomness
from vdm.objectives.latents import LatentBatch


@dataclass(frozen=True)
class Losses:
    """The losses of a batch."""

    per_clip: Float[Tensor, " b"]
    """Loss of each clip, which training minimizes."""
    t: PerClip
    """Diffusion time of each clip, or the mean over its noised frames. Losses are also reported by this time."""
    scalars: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict[str, Tensor])
    """Further numbers of each clip to be logged, by name; the name ``loss`` is reserved."""

    def __post_init__(self) -> None:
        if "loss" in self.scalars:
            raise ValueError("scalars: 'loss' is the name under which the loss itself is logged; choose another")


class Objective(Protocol):
    """A function whose value training minimizes. Training, validation, ``vdm evaluate`` and ``vdm plan`` call it.

    If its constructor has an argument ``model``, it gets the model with the weights at the start of training. Each
    process then needs memory for all of them, which FSDP2 otherwise avoids if they come from files.
    """

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip.

        Args:
            model: The model that is trained.
            latents: Clean latents and conditions of clips.
            randomness: Source of all random numbers of these clips.
        """
        ...


class ObjectiveWithModules(nn.Module, ABC):
    """An objective with modules of its own: a frozen reference, a teacher, a reward model, a second trained network.

    The modules are attributes of the objective; the model is not. Strategies shard them and checkpoints hold them like
    the model. Weights with ``requires_grad`` are trained and have EMA weights too. ``vdm plan`` counts the modules.
    There is one backward pass, through the sum of all losses: a term must detach the outputs of modules that it is not
    meant to train.

    Training calls ``train()`` on the modules. A network without dropout overrides ``train``, as
    ``vdm.models.frozen.Frozen`` does. ``blocks`` (activation checkpointing, compilation) applies to the model alone.
    """

    make_optimizer: Callable[[list[nn.Parameter]], Optimizer] | None = None
    """Makes an optimizer for the trained weights of the objective. None adds them to the model's optimizer. Both
    optimizers follow the same learning rate schedule; their gradients are clipped by separate norms."""

    @abstractmethod
    def forward(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip; see ``Objective``."""


def losses_of(
    objective: Objective, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness
) -> Losses:
    """Call an objective.

    Raises:
        ValueError: If it does not return losses, which can happen with a user's own objective.
    """
    losses = objective(model, latents, randomness)
    if not isinstance(losses, Losses):
        raise ValueError(
            f"objective: {type(objective).__name__} returned {type(losses).__name__}; it must return Losses"
            " (vdm/objectives/base.py)"
        )
    return losses


def with_modules_of(model: VideoDiffusionModel, objective: Objective) -> nn.Module:
    """Return one module that holds the model and the objective's modules: all that is trained and saved."""
    return nn.ModuleDict({"model": model, **({"objective": objective} if isinstance(objective, nn.Module) else {})})


def second_optimizer(objective: Objective) -> Callable[[list[nn.Parameter]], Optimizer] | None:
    """Return the objective's ``make_optimizer`` if the objective has trained weights; otherwise None."""
    if not isinstance(objective, ObjectiveWithModules) or not any(p.requires_grad for p in objective.parameters()):
        return None
    return objective.make_optimizer
