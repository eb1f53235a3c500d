"""Tasks with an input video: extension, interpolation, super-resolution. Each says what is known of the result."""

from dataclasses import dataclass, replace
from typing import Self

from jaxtyping import UInt8
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.models.autoencoder import PixelAutoencoder
from vdm.types import TensorRecord


@dataclass(frozen=True)
class Known(TensorRecord):
    """What is known of videos, as RGB; by default nothing."""

    frames: UInt8[Tensor, "c n h w"] | UInt8[Tensor, "v c n h w"] | None = None
    """Frames that are known exactly: the same of every video, or those of each."""
    indices: tuple[int, ...] = ()
    """Indices of those frames in the video."""
    small: UInt8[Tensor, "c t h2 w2"] | None = None
    """Every frame at a lower resolution."""

    def rows(self, rows: slice) -> Self:
        """Return what is known of the videos of a slice."""
        return self if self.frames is None or self.frames.ndim == 4 else replace(self, frames=self.frames[rows])


def extension(model: VideoDiffusionModel, video: UInt8[Tensor, "c n h w"], num_frames: int) -> Known:
    """Extend a video: the result has ``num_frames`` frames and begins with ``video``.

    Raises:
        ValueError: If there is nothing to add, or the autoencoder takes no clip as long as ``video``.
    """
    given = video.shape[1]
    if num_frames <= given:
        raise ValueError(
            f"num_frames={num_frames}: the input alone has {given}; ask for more, or take fewer: input_frames=..."
        )
    model.encoder.compression.latent_frames(given, "input_frames")
    return Known(video, tuple(range(given)))


def interpolation(model: VideoDiffusionModel, video: UInt8[Tensor, "c n h w"], every: int, num_frames: int) -> Known:
    """Interpolate a video: its frames become every ``every``-th one of ``num_frames``, from the first.

    Raises:
        ValueError: If no frame lies between them, they don't fit, or a latent frame of the model is several frames.
    """
    given, span = video.shape[1], model.encoder.compression.frames
    if span > 1:
        raise ValueError(
            f"task=interpolate: a latent frame of the model stands for {span} frames, and can't be given some of them"
        )
    if every < 2:
        raise ValueError(f"every={every}: must be at least 2, or no frame is missing")
    if given < 2:
        raise ValueError("input: interpolation needs two frames or more, but there is one")
    if num_frames < every * (given - 1) + 1:
        raise ValueError(
            f"num_frames={num_frames}: the input's {given} frames, {every} apart, need {every * (given - 1) + 1}"
        )
    return Known(video, tuple(range(0, every * given, every)))


def super_resolution(
    model: VideoDiffusionModel, video: UInt8[Tensor, "c t h w"], num_frames: int, height: int, width: int
) -> Known:
    """Enlarge a video: each of its pixels is the mean of a square of pixels of the result.

    Raises:
        ValueError: If the numbers of frames differ, if height and width are not the same multiple of the input's, or if
            the model diffuses latents: means of pixels are not means of latents.
    """
    given, rows, columns = video.shape[1:]
    if not isinstance(model.encoder, PixelAutoencoder):
        raise ValueError("task=superres: the model must diffuse pixels (encoder=pixels), not latents")
    if given != num_frames:
        raise ValueError(f"num_frames={num_frames}: must be that of the input, {given}")
    if height % rows or width % columns or height // rows != width // columns or height == rows:
        raise ValueError(
            f"input: has frames of {rows}x{columns}, but must have {height}x{width} divided by 2 or a greater number"
        )
    return Known(small=video)
