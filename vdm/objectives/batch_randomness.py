"""Random numbers of a batch: noise, noise levels and dropped conditions, as functions of the identity of each clip."""

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
from vdm.diffusion.time_ranges import ALL_TIMES, TimeRange
from vdm.objectives.condition_dropout import ConditionDropout
from vdm.prompts import Prompts

Shape = tuple[int, ...]
"""Channels, frames, rows and columns of a clip's latents."""
_TRAINING_NOISE = "noise"
"""Purpose of the noise of training steps."""


@dataclass(frozen=True)
class BatchRandomness(ABC):
    """Source of the random numbers of a batch of clips; the same clip always gets the same numbers.

    Args:
        seed: Seed of all random numbers.
        clip_ids: Identity of each clip: its position in training, its key elsewhere.
        noise_purpose: Purpose of the noise that is added to the latents; see ``vdm.randomness``.
    """

    seed: int
    clip_ids: Sequence[int | str]
    noise_purpose: str

    def noise(self, prior: NoisePrior, shape: Shape, num_images: int = 0) -> Float[Tensor, "b c t h w"]:
        """Draw the noise to be added to latents, in fp32 on the CPU.

        Args:
            prior: Distribution of a clip's noise.
            shape: Shape of one clip's latents, including its independent images.
            num_images: How many of the last frames are independent images. Each gets the noise of a clip of one frame.
        """
        channels, num_frames, height, width = shape
        clips = prior(self.seed, self.noise_purpose, self.clip_ids, (channels, num_frames - num_images, height, width))
        image = (channels, 1, height, width)
        purposes = [f"{self.noise_purpose} of image {k}" for k in range(num_images)]
        return torch.cat([clips, *(prior(self.seed, purpose, self.clip_ids, image) for purpose in purposes)], dim=2)

    @abstractmethod
    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Draw the diffusion time of each clip, or of each frame, in fp32 on the CPU; arguments as in ``noise``."""

    def drop_conditions(self, prompts: Prompts) -> Prompts:
        """Return the prompts with conditions dropped at random; by default none is.

        Args:
            prompts: Prompts of the clips, or of all their independent images; the images of a clip are adjacent.
        """
        return prompts

    def normal(self, purpose: str, shape: Shape) -> Float[Tensor, "b *shape"]:
        """Draw standard normal noise for an objective's own ``purpose``, in fp32 on the CPU."""
        return randomness.normal(self.seed, purpose, self.clip_ids, shape)

    def uniform(self, purpose: str) -> Float[Tensor, " b"]:
        """Draw a number in [0, 1) for each clip for an objective's own ``purpose``, in fp32 on the CPU."""
        return randomness.uniform(self.seed, purpose, self.clip_ids)


@dataclass(frozen=True)
class PrefetchedNoise:
    """Noise that was drawn before the step, with the arguments that it was drawn for."""

    noise: Float[Tensor, "b c t h w"]
    prior: NoisePrior
    num_images: int = 0

    def is_for(self, prior: NoisePrior, shape: Shape, num_images: int) -> bool:
        """Return whether ``BatchRandomness.noise`` with these arguments would draw this noise."""
        return (self.prior, tuple(self.noise.shape[1:]), self.num_images) == (prior, shape, num_images)


@dataclass(frozen=True)
class TrainingRandomness(BatchRandomness):
    """Random numbers of a training step, as functions of (seed, position).

    Args:
        seed: Seed of the run.
        clip_ids: Positions of the clips in the order of training.
        noise_purpose: See ``BatchRandomness``.
        global_batch_size: Number of samples in one optimizer step.
        condition_dropout: Probabilities of dropping conditions.
        prefetched_noise: The noise of these clips, if ``NoisePrefetcher`` has drawn it.
        within: Range of the times: that of the expert in training, if the network consists of two.
    """

    clip_ids: Sequence[int]
    noise_purpose: str = field(default=_TRAINING_NOISE, kw_only=True)
    global_batch_size: int = field(kw_only=True)
    condition_dropout: ConditionDropout = field(default=ConditionDropout(), kw_only=True)
    prefetched_noise: PrefetchedNoise | None = field(default=None, kw_only=True)
    within: TimeRange = field(default=ALL_TIMES, kw_only=True)

    def noise(self, prior: NoisePrior, shape: Shape, num_images: int = 0) -> Float[Tensor, "b c t h w"]:
        """Return the prefetched noise if it was drawn for these arguments; otherwise draw the noise."""
        ahead = self.prefetched_noise
        if ahead is not None and self.noise_purpose == _TRAINING_NOISE and ahead.is_for(prior, shape, num_images):
            return ahead.noise
        return super().noise(prior, shape, num_images)

    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Draw times from the diffusion's ``noise_levels``."""
        positions = torch.tensor(self.clip_ids)
        return diffusion.draw_times(self.seed, positions, self.global_batch_size, shape, num_images, self.within)

    def drop_conditions(self, prompts: Prompts) -> Prompts:
        """Return the prompts with conditions dropped at random; a clip and its images lose the same conditions."""
        each = len(prompts) // len(self.clip_ids)
        return self.condition_dropout.apply(prompts, self.seed, [name for name in self.clip_ids for _ in range(each)])


@dataclass(frozen=True)
class NoisePrefetcher:
    """Draws the noise of ``TrainingRandomness`` in the loader's workers, while the device computes the step before.

    Args:
        seed: Seed of the run.
        prior: Distribution of a clip's noise.
        latent_shapes: Shape of a clip's latents, by frames, rows and columns of the clip.
        num_images: Number of independent images with each clip.
    """

    seed: int
    prior: NoisePrior
    latent_shapes: Mapping[tuple[int, int, int], Shape]
    num_images: int

    def __call__(self, positions: Sequence[int], clip: tuple[int, int, int]) -> Float[Tensor, "b c t h w"]:
        """Return the noise of clips of one shape, and of their images."""
        channels, num_frames, *size = self.latent_shapes[clip]
        step = TrainingRandomness(self.seed, positions, global_batch_size=len(positions))
        return step.noise(self.prior, (channels, num_frames + self.num_images, *size), self.num_images)


@dataclass(frozen=True)
class HeldOutRandomness(BatchRandomness):
    """Random numbers of validation, as functions of the clips' keys: times are uniform, and no condition is dropped.

    Frames share noise levels as in training: frames that are clean in training are clean here too.
    """

    seed: int = field(default=0, kw_only=True)
    noise_purpose: str = field(default="validation noise", kw_only=True)

    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Draw times between 0 and 1."""

        def draw(purpose: str) -> Float[Tensor, " b"]:
            return self.uniform(f"validation {purpose}")

        return diffusion.frame_levels(draw, draw, shape[1] - num_images, num_images)


@dataclass(frozen=True)
class RandomnessAtTime(BatchRandomness):
    """Random numbers of an evaluation at one diffusion time for all clips, as functions of the clips' keys.

    Frames that are clean in training are clean here too.

    Args:
        seed: See ``BatchRandomness``.
        clip_ids: Keys of the clips.
        t: The time.
    """

    noise_purpose: str = field(init=False)
    t: float = field(kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_purpose", f"evaluation noise {self.t:.6f}")

    def times(self, diffusion: GaussianDiffusion, shape: Shape, num_images: int = 0) -> Times:
        """Return the time of every noised frame."""
        frames = shape[1] - num_images
        return diffusion.frame_levels(
            self._time, lambda purpose: self.uniform(f"evaluation {purpose}"), frames, num_images
        )

    def _time(self, purpose: str) -> Float[Tensor, " b"]:
        return torch.full((len(self.clip_ids),), self.t)
