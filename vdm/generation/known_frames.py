"""How a model is given known frames: pictures, the frames of an input video, and those of earlier frame blocks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.frame_levels import KnownFramesClean, takes_clean_frames, trained_on_clean_frames
from vdm.generation.canvas import known_latents
from vdm.generation.frame_blocks import Block
from vdm.generation.tasks import Known
from vdm.models.conditioner import TakesKnownFrames
from vdm.types import ClipSize

Pictures = UInt8[Tensor, "n c h w"]
"""RGB pictures of the videos' size: one a video, or one for all."""


def takes_pictures(model: VideoDiffusionModel) -> bool:
    """Return whether videos of the model can begin with a given picture, as a known frame."""
    return isinstance(model.conditioner, TakesKnownFrames) or takes_clean_frames(model.diffusion.frame_levels)


def with_pictures(
    model: VideoDiffusionModel, known: Known, num_frames: int, first: Pictures | None, last: Pictures | None = None
) -> Known:
    """Return what is known of videos, with pictures as their first and last frame.

    Args:
        model: The model that samples; ``takes_pictures`` has said that it takes a first one.
        known: What is known otherwise, of no whole frame.
        num_frames: Frames of the videos.
        first: The first frames.
        last: The last frames.

    Raises:
        ValueError: If there are whole frames in ``known``, no frame beside the pictures, or the model takes no last
            frame.
    """
    if first is not None and last is None and num_frames == 1:
        raise ValueError("image: with num_frames=1 there is no frame to make beside it")
    given = {0: first, num_frames - 1: last}
    pictures = {place: picture for place, picture in given.items() if picture is not None}
    if not pictures:
        return known
    if known.frames is not None:
        raise ValueError("image: known frames are given already")
    if last is not None:
        _refuse_last(model, num_frames)
    number = max(map(len, pictures.values()))
    frames = torch.stack([picture.expand(number, -1, -1, -1) for picture in pictures.values()], dim=2)
    return replace(known, frames=frames if number > 1 else frames[0], indices=tuple(pictures))


def _refuse_last(model: VideoDiffusionModel, num_frames: int) -> None:
    span = model.encoder.compression.frames
    if num_frames == 1:
        raise ValueError(f"last_image: with num_frames={num_frames} there is no last frame beside the first")
    if isinstance(model.conditioner, TakesKnownFrames):
        if not model.conditioner.takes_last_frame:
            raise ValueError(
                "last_image: the model takes none, since it attends to the picture of the first frame alone"
            )
    elif not takes_clean_frames(model.diffusion.frame_levels):
        raise ValueError("last_image: the model was trained without known frames (diffusion/frame_levels=known_frames)")
    elif span > 1:
        raise ValueError(
            f"last_image: the model takes none, since its last latent frame stands for {span} frames, not for a picture"
        )


def was_trained_on(model: VideoDiffusionModel, block: Block) -> bool:
    """Return whether the model was trained on clips of which just these frames are known."""
    if isinstance(model.conditioner, TakesKnownFrames):
        known = [frame - block.start for frame in block.known]
        return model.conditioner.frames.may_be(known, block.stop - block.start)
    size = ClipSize(block.stop - block.start, model.encoder.compression.pixels, model.encoder.compression.pixels)
    num_latents = model.encoder.compression.latent_size(size)[0]
    return trained_on_clean_frames(model.diffusion.frame_levels, known_latents(model, block), num_latents)


def known_as_in_training(model: VideoDiffusionModel, videos: Callable[[], UInt8[Tensor, "v c t h w"]]) -> Known:
    """Return what is known of videos if it is as little as possible of what was known in training; see ``FrameChoice``.

    Nothing is known if the model was not trained with clean frames, or can't encode such frames without the others.

    Args:
        model: The model that samples.
        videos: Returns RGB videos, of which some frames are to be known. Not called if none are, since videos may have
            to be decoded.
    """
    levels, compression = model.diffusion.frame_levels, model.encoder.compression
    if not isinstance(levels, KnownFramesClean):
        return Known()
    real = videos()
    is_known = levels.frames(lambda purpose: torch.zeros(1), compression.latent_frames(real.shape[2]))[0]
    latents = is_known.nonzero().flatten().tolist()
    if compression.frames > 1 and latents != list(range(len(latents))):
        return Known()
    frames = range(compression.frames * (len(latents) - 1) + 1) if compression.frames > 1 and latents else latents
    return Known(real[:, :, list(frames)], tuple(frames)) if latents else Known()


def prefers_clean_frames(model: VideoDiffusionModel, blocks: Sequence[Block]) -> bool:
    """Return whether the model has learnt to be given the known frames of these blocks clean, in their places."""
    with_known = [block for block in blocks if block.known]
    return takes_clean_frames(model.diffusion.frame_levels) and all(was_trained_on(model, each) for each in with_known)
