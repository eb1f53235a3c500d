"""Clips put together into a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vdm.data.labels import ClipLabel
from vdm.data.text_embeddings import TextEmbedding
from vdm.types import ClipBatch, ImageBatch, TextEmbeddings

Crop = tuple[int, int, int, int]
"""Rows and columns of the stored clip, and first row and column of the crop."""


class LoadedClip(NamedTuple):
    """One clip of a batch, without its pixels."""

    key: str
    latents: Float[Tensor, "d t2 h2 w2"] | None
    text: TextEmbedding | None
    motion: float
    label: ClipLabel
    weight: float
    crop: Crop
    image_labels: tuple[ClipLabel, ...]
    image_crops: tuple[Crop, ...]


def collate(
    positions: Sequence[int],
    clips: Sequence[LoadedClip],
    videos: UInt8[Tensor, "b c t h w"],
    images: UInt8[Tensor, "b c k h w"] | None,
    empty_text: TextEmbedding | None,
    has_motion: bool,
) -> ClipBatch:
    """Return the batch of some clips.

    Args:
        positions: Position of each clip in the order of training.
        clips: The clips, without their pixels.
        videos: Pixels of the clips.
        images: Pixels of the images beside the clips, or None.
        empty_text: Stored text embedding of the empty caption, if text embeddings are read.
        has_motion: Whether the batch has the motion of each clip.
    """
    return ClipBatch(
        video=videos,
        captions=tuple(clip.label.caption for clip in clips),
        labels=torch.tensor([clip.label.label for clip in clips]),
        positions=torch.tensor(positions),
        weights=torch.tensor([clip.weight for clip in clips]),
        keys=tuple(clip.key for clip in clips),
        fps=torch.tensor([clip.label.fps for clip in clips]),
        images=None if images is None else _collate_images(clips, images),
        latents=_collate_latents(clips),
        text=_collate_text([clip.text for clip in clips]),
        empty_text=_collate_text([empty_text]),
        motion=torch.tensor([clip.motion for clip in clips]) if has_motion else None,
        crops=torch.tensor([clip.crop for clip in clips]),
    )


def _collate_latents(clips: Sequence[LoadedClip]) -> Float[Tensor, "b d t2 h2 w2"] | None:
    latents = [clip.latents for clip in clips if clip.latents is not None]
    if not latents:
        return None
    kinds = {one.dtype for one, clip in zip(latents, clips, strict=True) if clip.weight > 0}
    kind = kinds.pop() if len(kinds) == 1 else torch.float32
    return torch.stack([one.to(kind) for one in latents])


def _collate_text(embeddings: Sequence[TextEmbedding | None]) -> TextEmbeddings | None:
    found = [embedding for embedding in embeddings if embedding is not None]
    return TextEmbeddings.padded(found) if found else None


def _collate_images(clips: Sequence[LoadedClip], pixels: UInt8[Tensor, "b c k h w"]) -> ImageBatch:
    return ImageBatch(
        pixels=pixels,
        captions=tuple(tuple(image.caption for image in clip.image_labels) for clip in clips),
        labels=torch.tensor([[image.label for image in clip.image_labels] for clip in clips]),
        crops=torch.tensor([clip.image_crops for clip in clips]),
    )
