"""From positions in the order of samples to batches of clips; runs in the loader's workers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vdm import randomness
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_frame
from vdm.data.order import PADDING, Place
from vdm.data.quarantine import BadSampleError, Fault
from vdm.data.reading import RawSample, ShardReader
from vdm.data.shards import Shape
from vdm.types import ClipBatch, ImageBatch

LoadedBatch = tuple[ClipBatch, tuple[Fault, ...]]
"""A batch, and what is wrong with its clips of weight 0."""


class Order(Protocol):
    """Says where the sample of a position lies."""

    def locate(self, position: int) -> Place:
        """Return the place of the sample at ``position``."""
        ...


@dataclass(frozen=True)
class RandomImages:
    """How to choose the independent images that are trained on beside a clip.

    They are frames of the samples at other positions near the clip's, whose shards are open at that time anyway.
    """

    seed: int
    num_per_clip: int
    """k, at least 1."""
    reach: int
    """Number of positions, from the clip's own on, among which they are chosen; the own is left out if > 1."""

    def choose(self, position: int, num_frames: int) -> list[tuple[int, int]]:
        """Return the position and the frame of each image beside the clip at ``position``."""
        generator = randomness.generator(self.seed, "image", position)
        distances = torch.randint(1, max(2, self.reach), (self.num_per_clip,), generator=generator)
        frames = torch.randint(num_frames, (self.num_per_clip,), generator=generator)
        return [(position + int(d), int(f)) for d, f in zip(distances, frames, strict=True)]


@dataclass(frozen=True)
class _Label:
    caption: str = ""
    label: int = -1
    fps: float = 1.0


@dataclass(frozen=True)
class _Clip:
    key: str
    video: UInt8[Tensor, "c t h w"]
    label: _Label
    weight: float
    images: UInt8[Tensor, "c k h w"]
    image_labels: tuple[_Label, ...]


class ClipDataset(Dataset[LoadedBatch]):
    """Batches by the positions of their samples.

    Args:
        reader: Source of the samples.
        order: Where each position's sample lies.
        shape: Shape of every clip: (t, h, w).
        images: Images to put beside each clip, or None.
        period: Number of positions after which the samples repeat, to overfit one batch; None for the order as it is.
    """

    def __init__(
        self,
        reader: ShardReader,
        order: Order,
        shape: Shape,
        images: RandomImages | None = None,
        period: int | None = None,
    ) -> None:
        self._reader = reader
        self._order = order
        self._shape = shape
        self._images = images
        self._period = period

    def __getitem__(self, positions: Sequence[int]) -> LoadedBatch:
        """Load the clips at ``positions``; padding and bad samples become blank clips of weight 0."""
        clips: list[_Clip] = []
        faults: list[Fault] = []
        for position in positions:
            try:
                clips.append(self._blank() if position == PADDING else self._load(position))
            except BadSampleError as error:
                faults.append(error.fault)
                clips.append(self._blank())
        return self._collate(positions, clips), tuple(faults)

    def _load(self, position: int) -> _Clip:
        """Load a clip and its images; if one of them is bad, so is the whole."""
        position = position % self._period if self._period else position
        raw, label = self._read(position)
        try:
            video = decode_clip(raw.video, self._shape)
        except UndecodableClipError as error:
            raise raw.bad(error) from error
        images, image_labels = self._load_images(position)
        return _Clip(raw.key, video, label, 1.0, images, image_labels)

    def _load_images(self, position: int) -> tuple[UInt8[Tensor, "c k h w"], tuple[_Label, ...]]:
        choices = self._images.choose(position, self._shape[0]) if self._images else []
        pixels = self._blank_images()
        labels: list[_Label] = []
        for i, (other, frame) in enumerate(choices):
            raw, label = self._read(other)
            labels.append(label)
            try:
                pixels[:, i] = decode_frame(raw.video, self._shape, frame)
            except UndecodableClipError as error:
                raise raw.bad(error) from error
        return pixels, tuple(labels)

    def _read(self, position: int) -> tuple[RawSample, _Label]:
        place = self._order.locate(position)
        raw = self._reader.read(place.shard, place.sample)
        try:
            return raw, _parse_label(raw.metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise raw.bad(f"its metadata is malformed ({error!r})") from error

    def _blank(self) -> _Clip:
        video = torch.zeros(3, *self._shape, dtype=torch.uint8)
        images = self._blank_images()
        return _Clip("", video, _Label(), 0.0, images, (_Label(),) * images.shape[1])

    def _blank_images(self) -> UInt8[Tensor, "c k h w"]:
        num_images = self._images.num_per_clip if self._images else 0
        return torch.zeros(3, num_images, *self._shape[1:], dtype=torch.uint8)

    def _collate(self, positions: Sequence[int], clips: Sequence[_Clip]) -> ClipBatch:
        return ClipBatch(
            video=torch.stack([clip.video for clip in clips]),
            captions=tuple(clip.label.caption for clip in clips),
            labels=torch.tensor([clip.label.label for clip in clips]),
            positions=torch.tensor(positions),
            weights=torch.tensor([clip.weight for clip in clips]),
            keys=tuple(clip.key for clip in clips),
            fps=torch.tensor([clip.label.fps for clip in clips]),
            images=_collate_images(clips) if self._images else None,
        )


def _collate_images(clips: Sequence[_Clip]) -> ImageBatch:
    return ImageBatch(
        pixels=torch.stack([clip.images for clip in clips]),
        captions=tuple(tuple(image.caption for image in clip.image_labels) for clip in clips),
        labels=torch.tensor([[image.label for image in clip.image_labels] for clip in clips]),
    )


def _parse_label(data: bytes) -> _Label:
    metadata = json.loads(data)
    label = metadata["label"]
    return _Label(str(metadata["caption"]), -1 if label is None else int(label), float(metadata["fps"]))
