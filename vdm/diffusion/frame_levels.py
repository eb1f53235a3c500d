"""Noise levels of the frames of a clip: one for all, one for each, or known frames clean among noised ones.

With one noise level a frame, a model learns to make the frames that belong to known ones, which are clean
(``KnownFramesClean``), or to continue frames that are still noisy (``IndependentFrames``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from vdm.diffusion.noise_levels import LEVEL_OF_CLIP
from vdm.diffusion.shapes import Counted, Latents, Level, PerClip, PerFrame, mean_of_frames, per_frame
from vdm.known_frames import Draw, FirstFrames, FrameChoice, IsKnown
from vdm.ranges import Share
from vdm.types import TensorRecord


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


def clean_where_known(
    xt: Latents, alpha: Level, sigma: Level, x0: Latents, is_known: IsKnown
) -> tuple[Latents, PerFrame, PerFrame]:
    """Put known frames in their places without noise: this makes the network's input in training and in sampling.

    Args:
        xt: Noised latents.
        alpha: Signal of each clip, or of each frame.
        sigma: Noise of each clip, or of each frame.
        x0: Clean latents; only those of known frames are used.
        is_known: True for known latent frames.

    Returns:
        Latents, signal and noise, the latter two of each frame: 1 and 0 where a frame is known, whatever the schedule
        has at ``t = 0``.
    """
    alpha, sigma = (per_frame(level, xt.shape[2]) for level in (alpha, sigma))
    xt = torch.where(is_known[:, None, :, None, None], x0.to(xt), xt)
    return xt, torch.where(is_known, 1, alpha), torch.where(is_known, 0, sigma)


def trained_on_clean_frames(frame_levels: FrameLevels, clean: Sequence[int], num_frames: int) -> bool:
    """Return whether a model trained with ``frame_levels`` takes clips where just these latent frames are clean."""
    if isinstance(frame_levels, KnownFramesClean) and not trained_on_any_levels(frame_levels):
        return frame_levels.frames.may_be(clean, num_frames)
    return takes_clean_frames(frame_levels)


def after_reference(
    reference: Latents,
    xt: Float[Tensor, "b c t2 h w"],
    alpha: Float[Tensor, "b *frames"],
    sigma: Float[Tensor, "b *frames"],
) -> tuple[Float[Tensor, "b c t3 h w"], Float[Tensor, "b t3"], Float[Tensor, "b t3"]]:
    """Put the latents of a reference clip before others in time, as known frames; the network's positions run on.

    Args:
        reference: Clean latents.
        xt: Noised latents.
        alpha: Signal of each clip, or of each frame.
        sigma: Noise of each clip, or of each frame.

    Returns:
        Latents, signal and noise of the frames of both, as ``clean_where_known`` returns them.
    """
    number, num_frames = reference.shape[2], xt.shape[2]
    joined = torch.cat([reference.to(xt), xt], dim=2)
    alpha, sigma = (pad(per_frame(level, num_frames), (number, 0)) for level in (alpha, sigma))
    is_known = torch.arange(number + num_frames, device=xt.device) < number
    return clean_where_known(joined, alpha, sigma, joined, is_known.expand(len(xt), -1))


def takes_clean_frames(frame_levels: FrameLevels) -> bool:
    """Return whether a model trained with ``frame_levels`` takes clips of which some latent frames are clean."""
    return not isinstance(frame_levels, LevelPerClip)


def trained_on_any_levels(frame_levels: FrameLevels) -> bool:
    """Return whether a model trained with ``frame_levels`` takes noisy frames of different levels."""
    others = frame_levels.others if isinstance(frame_levels, KnownFramesClean) else frame_levels
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
class KnownFramesClean:
    """Known latent frames are clean and don't count in the loss; the model learns to make the others.

    Wan 2.2's TI2V-5B is such a model; its known frame is the first.

    Args:
        frames: Which latent frames are known.
        probability: Probability that a clip has known frames.
        others: Noise levels of the other frames.
    """

    frames: FrameChoice = FirstFrames()
    probability: Share = 1.0
    others: FrameLevels = LevelPerClip()

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], but is {self.probability}")

    def __call__(self, draw_time: Draw, draw_uniform: Draw, num_frames: int, num_images: int = 0) -> Times:
        """Return one time a frame."""
        times = self.others(draw_time, draw_uniform, num_frames, num_images)
        has_known = draw_uniform("clean frames") < self.probability
        is_known = self.frames(draw_uniform, num_frames) & has_known[:, None]
        noised = pad(~is_known, (0, num_images), value=True)
        t = times.t[:, None] if times.t.ndim == 1 else times.t
        counted = noised if times.counted is None else noised & times.counted
        return Times(torch.where(counted, t, 0), counted)
