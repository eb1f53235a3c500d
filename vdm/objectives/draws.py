"""What is random about a batch: noise, noise levels, left-out conditions, each a function of what names a clip."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from vdm import randomness
from vdm.diffusion.frame_levels import Times
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.noise_priors import NoisePrior
from vdm.objectives.condition_dropout import ConditionDropout
from vdm.prompts import Prompts

Shape = tuple[int, ...]
"""Channels, frames, rows and columns of a clip's latents."""
_TRAINING_NOISE = "noise"
"""Purpose of the noise of training steps."""


@dataclass(frozen=True)
class Draws(ABC):
    """The randomness of a batch of clips; two batches with the same clips draw the same.

    Args:
        seed: Of all draws.
        names: Names each clip: its position in training, its key elsewhere.
        noise_purpose: Purpose of the noise that is added to the latents.
    """

    seed: int
    names: Sequence[int | str]
    noise_purpose: str

    def noise(self, prior: NoisePrior, shape: Shape, num_images: int = 0) -> Float[Tensor, "b c t h w"]:
        """Draw the noise to be added to latents, in fp32 on the CPU.

        Args:
            prior: How a clip's noise hangs together.
            shape: Shape of one clip's latents, those of its independent images included.
            num_images: The last frames, each of which has the noise of a clip of one frame.
        """
        channels, num_frames, height, width = shape
        clips = prior(self.seed, self.noise_purpose, self.names, (channels, num_frames - num_images, height, width))
        image = (channels, 1, height, width)
        purposes = [f"{self.noise_purpose} of image {k}" for k in range(num_images)]
        return torch.cat([clips, *(prior(self.seed, purpose, self.names, image) for purpose in purposes)], dim=2)

    @abstractmethod
    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Return when each clip, or each of its frames, is noised to, in fp32 on the CPU; arguments as in ``noise``."""

    def drop_conditions(self, prompts: Prompts) -> Prompts:
        """Return the prompts without what is left out, by default with everything.

        Args:
            prompts: Those of the clips, or of all their independent images, those of a clip adjacent.
        """
        return prompts

    def normal(self, purpose: str, shape: Shape) -> Float[Tensor, "b *shape"]:
        """Draw standard normal noise for an objective's own ``purpose``, in fp32 on the CPU."""
        return randomness.normal(self.seed, purpose, self.names, shape)

    def uniform(self, purpose: str) -> Float[Tensor, " b"]:
        """Draw a number in [0, 1) for each clip for an objective's own ``purpose``, in fp32 on the CPU."""
        return randomness.uniform(self.seed, purpose, self.names)


@dataclass(frozen=True)
class DrawnAhead:
    """Noise that was drawn before the step, and what it was drawn for."""

    noise: Float[Tensor, "b c t h w"]
    prior: NoisePrior
    num_images: int = 0

    def is_for(self, prior: NoisePrior, shape: Shape, num_images: int) -> bool:
        """Tell whether it is what ``Draws.noise`` is asked for."""
        return (self.prior, tuple(self.noise.shape[1:]), self.num_images) == (prior, shape, num_images)


@dataclass(frozen=True)
class TrainingDraws(Draws):
    """The randomness of a training step, by (seed, position).

    Args:
        seed: Seed of the run.
        names: Positions of the clips in the order of training.
        noise_purpose: See ``Draws``.
        global_batch_size: Samples in one optimizer step.
        condition_dropout: How often conditions are left out.
        noise_ahead: The noise of these clips, where ``NoiseAhead`` has drawn it.
    """

    names: Sequence[int]
    noise_purpose: str = field(default=_TRAINING_NOISE, kw_only=True)
    global_batch_size: int = field(kw_only=True)
    condition_dropout: ConditionDropout = field(default=ConditionDropout(), kw_only=True)
    noise_ahead: DrawnAhead | None = field(default=None, kw_only=True)

    def noise(self, prior: NoisePrior, shape: Shape, num_images: int = 0) -> Float[Tensor, "b c t h w"]:
        """Return the noise that was drawn ahead, or draw it; an objective may ask for other noise than that."""
        ahead = self.noise_ahead
        if ahead is not None and self.noise_purpose == _TRAINING_NOISE and ahead.is_for(prior, shape, num_images):
            return ahead.noise
        return super().noise(prior, shape, num_images)

    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Draw times from the diffusion's ``noise_levels``."""
        return diffusion.draw_times(self.seed, torch.tensor(self.names), self.global_batch_size, shape, num_images)

    def drop_conditions(self, prompts: Prompts) -> Prompts:
        """Return the prompts without what is left out, of a clip and of its images alike."""
        each = len(prompts) // len(self.names)
        return self.condition_dropout.apply(prompts, self.seed, [name for name in self.names for _ in range(each)])


@dataclass(frozen=True)
class NoiseAhead:
    """Draws what ``TrainingDraws.noise`` would, in the workers that load clips, while a device does the step before.

    Args:
        seed: Seed of the run.
        prior: How a clip's noise hangs together.
        latent_shapes: Shape of a clip's latents by frames, rows and columns of the clip.
        num_images: Independent images beside each clip.
    """

    seed: int
    prior: NoisePrior
    latent_shapes: Mapping[tuple[int, int, int], Shape]
    num_images: int

    def __call__(self, positions: Sequence[int], clip: tuple[int, int, int]) -> Float[Tensor, "b c t h w"]:
        """Return the noise of clips of one shape, and of their images."""
        channels, num_frames, *size = self.latent_shapes[clip]
        draws = TrainingDraws(self.seed, positions, global_batch_size=len(positions))
        return draws.noise(self.prior, (channels, num_frames + self.num_images, *size), self.num_images)


@dataclass(frozen=True)
class HeldOutDraws(Draws):
    """The randomness of validation, by the clips' keys: uniform times, every condition given.

    Frames share their times as in training: those that training gives clean are clean here, too.
    """

    seed: int = field(default=0, kw_only=True)
    noise_purpose: str = field(default="validation noise", kw_only=True)

    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Draw times between 0 and 1."""

        def draw(purpose: str) -> Float[Tensor, " b"]:
            return self.uniform(f"validation {purpose}")

        return diffusion.frame_levels(draw, draw, shape[1] - num_images, num_images)


@dataclass(frozen=True)
class DrawsAtTime(Draws):
    """The randomness of an evaluation that noises every clip to the same time, by the clips' keys.

    Frames that training gives clean are clean here, too.

    Args:
        t: The time.
    """

    noise_purpose: str = field(init=False)
    t: float = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_purpose", f"evaluation noise {self.t:.6f}")

    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Return the time, for all frames that are noised."""
        frames = shape[1] - num_images
        return diffusion.frame_levels(
            self._time, lambda purpose: self.uniform(f"evaluation {purpose}"), frames, num_images
        )

    def _time(self, purpose: str) -> Float[Tensor, " b"]:
        return torch.full((len(self.names),), self.t)
