"""What every objective is: from latents to a loss per clip."""

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
    """What an objective says about a batch."""

    per_clip: Float[Tensor, " b"]
    """Loss of each clip, which training minimizes."""
    t: PerClip
    """Time that each clip was noised to, or the mean over its frames that count: losses are reported by it."""
    scalars: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict[str, Tensor])
    """Further figures of each clip to be logged, by name; ``loss`` is the name of the loss itself."""

    def __post_init__(self) -> None:
        if "loss" in self.scalars:
            raise ValueError("scalars: 'loss' is the name under which the loss itself is logged; choose another")


class Objective(Protocol):
    """What is minimized. Training, validation, ``vdm evaluate`` and ``vdm plan`` all call it.

    Where its constructor takes a ``model``, it is given the model as training starts from it.
    """

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip.

        Args:
            model: What is trained.
            latents: Clean latents and conditions of clips.
            randomness: All that is random about them.
        """
        ...


class ObjectiveWithModules(nn.Module, ABC):
    """An objective that brings modules: a frozen reference, a teacher, a reward, a second network that is trained.

    They are attributes of it; the model is not. Strategies shard them and checkpoints hold them like the model's;
    ``requires_grad`` says which of their weights train, and these are averaged too. ``vdm plan`` counts them. One
    backward pass is run through the sum of all losses: what a term is not to train must be detached in it.

    Training puts them into training mode: a network that is to be without drop-out overrides ``train``, as
    ``vdm.models.frozen.Frozen`` does. ``blocks`` (recomputing, compiling) is for the model alone.
    """

    make_optimizer: Callable[[list[nn.Parameter]], Optimizer] | None = None
    """Makes an optimizer of the weights that train here; none trains them by the model's, by its options. Both follow
    the same schedule, and each gradient is clipped by its own norm."""

    @abstractmethod
    def forward(self, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness) -> Losses:
        """Return the loss of each clip; see ``Objective``."""


def losses_of(
    objective: Objective, model: VideoDiffusionModel, latents: LatentBatch, randomness: BatchRandomness
) -> Losses:
    """Call an objective.

    Raises:
        ValueError: If it returns something else than losses, as one of a user's own may by mistake.
    """
    losses = objective(model, latents, randomness)
    if not isinstance(losses, Losses):
        raise ValueError(
            f"objective: {type(objective).__name__} returned {type(losses).__name__}; it must return Losses"
            " (vdm/objectives/base.py)"
        )
    return losses


def with_modules_of(model: VideoDiffusionModel, objective: Objective) -> nn.Module:
    """Return all that is trained and stored, the model and what the objective brings, as one module."""
    return nn.ModuleDict({"model": model, **({"objective": objective} if isinstance(objective, nn.Module) else {})})


def second_optimizer(objective: Objective) -> Callable[[list[nn.Parameter]], Optimizer] | None:
    """Return what makes the optimizer of a network that an objective trains apart from the model, if it does."""
    if not isinstance(objective, ObjectiveWithModules) or not any(p.requires_grad for p in objective.parameters()):
        return None
    return objective.make_optimizer
