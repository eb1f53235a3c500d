"""What every objective is: from latents to a loss per clip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.shapes import PerClip
from vdm.objectives.draws import Draws
from vdm.objectives.latents import LatentBatch


@dataclass(frozen=True)
class Losses:
    """What an objective says about a batch."""

    per_clip: Float[Tensor, " b"]
    """Loss of each clip, which training minimizes."""
    t: PerClip
    """Time that each clip was noised to, or the mean over its frames that count: losses are reported by it."""
    scalars: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict[str, Tensor])
    """Further figures of each clip to be logged, by name."""


class Objective(Protocol):
    """What is minimized. Training, validation, ``vdm evaluate`` and ``vdm plan`` all call it."""

    def __call__(self, model: VideoDiffusionModel, latents: LatentBatch, draws: Draws) -> Losses:
        """Return the loss of each clip.

        Args:
            model: What is trained.
            latents: Clean latents and conditions of clips.
            draws: All that is random about them.
        """
        ...
