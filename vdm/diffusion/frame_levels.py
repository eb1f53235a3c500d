"""Noise levels of the frames of a clip: one for all, one for each, or clean frames before noised ones.

With one noise level a frame, a model learns to continue frames that are clean (``CleanPrefix``), or that are still
noisy (``IndependentFrames``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from vdm.diffusion.noise_levels import LEVEL_OF_CLIP
from vdm.diffusion.shapes import Counted, Level, PerClip, mean_of_frames
from vdm.ranges import Share, Size
from vdm.types import TensorRecord

Draw = Callable[[str], PerClip]
"""Draws one number a clip for a purpose; numbers of different purposes are independent."""


@dataclass(frozen=True)
class Times(TensorRecord):
    """Diffusion times of clips or of their frames."""

    t: Level
    """Time of each clip, or of each frame including independent images; 0 is data."""
    counted: Counted | None = None
    """True for frames that are noised and count in the loss. None if all do."""

    @property
    def of_clips(self) -> PerClip:
        """Time of each clip: the mean over the frames that count."""
        return self.t if self.t.ndim == 1 else mean_of_frames(self.t, self.counted)


class FrameLevels(Protocol):
    """Draws the times of the frames of a clip."""

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return the times, in fp32 on the CPU.

        Args:
            draw_time: Draws times: from ``noise_levels`` in training, uniformly in validation.
            draw_uniform: Draws numbers in [0, 1) for other random choices.
            num_frames: Number of latent frames of each clip.
            num_images: Number of independent images that follow them.
        """
        ...


def trained_on_clean_frames(frame_levels: FrameLevels, clean: Sequence[int]) -> bool:
    """Return whether a model trained with ``frame_levels`` takes clips where just these latent frames are clean."""
    if isinstance(frame_levels, CleanPrefix) and not trained_on_any_levels(frame_levels):
        is_prefix = list(clean) == list(range(len(clean)))
        return is_prefix and frame_levels.min_frames <= len(clean) <= frame_levels.max_frames
    return not isinstance(frame_levels, LevelPerClip)


def trained_on_any_levels(frame_levels: FrameLevels) -> bool:
    """Return whether a model trained with ``frame_levels`` takes noisy frames of different levels."""
    others = frame_levels.others if isinstance(frame_levels, CleanPrefix) else frame_levels
    return not isinstance(others, LevelPerClip)


@dataclass(frozen=True)
class LevelPerClip:
    """All frames of a clip, and its independent images, have the same level."""

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return one time a clip."""
        return Times(draw_time(LEVEL_OF_CLIP))


@dataclass(frozen=True)
class IndependentFrames:
    """Each latent frame, and each image, has its own level (diffusion forcing: Chen et al. 2024, algorithm 1).

    Such a model can generate frames one after the other, or each with a delay to the one before: see ``Staggered``.
    """

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return one time a frame."""
        times = [draw_time(f"noise level of frame {frame}") for frame in range(num_frames + num_images)]
        return Times(torch.stack(times, dim=1))


@dataclass(frozen=True)
class CleanPrefix:
    """The first latent frames of a clip are clean and don't count in the loss; the model learns to continue them.

    Their number is uniform from ``min_frames`` to ``max_frames``, but at least one frame of each clip is noised.

    Args:
        min_frames: Smallest number of clean latent frames.
        max_frames: Largest number of clean latent frames.
        probability: Probability that a clip has clean frames.
        others: Noise levels of the frames that follow the clean ones.
    """

    min_frames: Size = 1
    max_frames: Size = 1
    probability: Share = 1.0
    others: FrameLevels = LevelPerClip()

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                "min_frames and max_frames must be at least 1, min_frames not above max_frames, but are "
                f"{self.min_frames} and {self.max_frames}"
            )
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], but is {self.probability}")

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return one time a frame."""
        times = self.others(draw_time, draw_uniform, num_frames, num_images)
        choices = self.max_frames - self.min_frames + 1
        num_clean = self.min_frames + (draw_uniform("number of clean frames") * choices).floor()
        num_clean = torch.where(draw_uniform("clean frames") < self.probability, num_clean, 0)
        noised = torch.arange(num_frames + num_images) >= num_clean.clamp(max=num_frames - 1)[:, None]
        t = times.t[:, None] if times.t.ndim == 1 else times.t
        counted = noised if times.counted is None else noised & times.counted
        return Times(torch.where(counted, t, 0), counted)
