"""How the frames of a clip share noise levels: one for all, one each, or clean frames before noised ones.

A noise level a frame trains models that go on from frames of any quality: those given clean (``CleanPrefix``), or those
that are themselves still being made (``IndependentFrames``).
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
"""Draws one number a clip for a purpose; different purposes are independent."""


@dataclass(frozen=True)
class Times(TensorRecord):
    """When clips, or their frames, are noised to."""

    t: Level
    """Time of each clip, or of each frame, independent images included; 0 is data."""
    counted: Counted | None = None
    """Which frames are noised and count in the loss; none for all."""

    @property
    def of_clips(self) -> PerClip:
        """Time of each clip: the mean over its frames that count."""
        return self.t if self.t.ndim == 1 else mean_of_frames(self.t, self.counted)


class FrameLevels(Protocol):
    """A way to give the frames of a clip their times."""

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return the times, in fp32 on the CPU.

        Args:
            draw_time: Draws times: from ``noise_levels`` in training, uniform in validation.
            draw_uniform: Draws numbers in [0, 1), for what else is random.
            num_frames: Frames of each clip's latents.
            num_images: Independent images behind them.
        """
        ...


def trained_on_clean_frames(frame_levels: FrameLevels, clean: Sequence[int]) -> bool:
    """Tell whether a model trained so has seen these latent frames of a clip clean, and the others noised."""
    if isinstance(frame_levels, CleanPrefix) and not trained_on_any_levels(frame_levels):
        is_prefix = list(clean) == list(range(len(clean)))
        return is_prefix and frame_levels.min_frames <= len(clean) <= frame_levels.max_frames
    return not isinstance(frame_levels, LevelPerClip)


def trained_on_any_levels(frame_levels: FrameLevels) -> bool:
    """Tell whether a model trained so has seen frames that are not clean, each with a level of its own."""
    others = frame_levels.others if isinstance(frame_levels, CleanPrefix) else frame_levels
    return not isinstance(others, LevelPerClip)


@dataclass(frozen=True)
class LevelPerClip:
    """All frames of a clip, and the images beside it, have the same level."""

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return one time a clip."""
        return Times(draw_time(LEVEL_OF_CLIP))


@dataclass(frozen=True)
class IndependentFrames:
    """Each latent frame, and each image, has a level of its own (diffusion forcing: Chen et al. 2024, algorithm 1).

    A model trained so can make frames one after the other, or each a little behind the one before: see ``Staggered``.
    """

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return one time a frame."""
        times = [draw_time(f"noise level of frame {frame}") for frame in range(num_frames + num_images)]
        return Times(torch.stack(times, dim=1))


@dataclass(frozen=True)
class CleanPrefix:
    """The first latent frames of a clip are given clean and don't count in the loss; the model learns to go on.

    How many they are is uniform from ``min_frames`` to ``max_frames``, but of each clip at least one frame counts.

    Args:
        min_frames: The least number of clean latent frames.
        max_frames: The largest number.
        probability: Share of clips that have clean frames; the others are noised throughout.
        others: How the frames after them share noise levels.
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
