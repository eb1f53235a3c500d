"""From positions in the order of samples to batches of clips; runs in the loader's workers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vdm import randomness
from vdm.data.captions import captions_of, parse_metadata
from vdm.data.clips import ClipSampling, Cut
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_picture, empty_clips
from vdm.data.latents import LatentShape, UnusableLatentsError, read_latents
from vdm.data.mixing import Bucket, MixedPlace
from vdm.data.motion import motion_of, stored_motion
from vdm.data.order import PADDING, MicroBatch
from vdm.data.quarantine import BadSampleError, Fault
from vdm.data.reading import LATENTS, PICTURES, TEXT, VIDEO, RawSample, Request, ShardReader, pixels_of
from vdm.data.shards import Shape
from vdm.data.text_embeddings import TextEmbedding, UnusableTextError, read_text
from vdm.files import MALFORMED
from vdm.types import ClipBatch, ImageBatch, TextEmbeddings

LoadedBatch = tuple[ClipBatch, tuple[Fault, ...]]
"""A batch, and what is wrong with its clips of weight 0."""

_METADATA = frozenset({"json", "txt"})


class Order(Protocol):
    """Says where the sample of a position lies."""

    def bucket_of(self, position: int) -> tuple[int, int]:
        """Return the bucket of a position, and the number that the position has in it."""
        ...

    def locate(self, position: int) -> MixedPlace:
        """Return the place of the sample at ``position``."""
        ...


class ShuffledBuckets(Order, Protocol):
    """An order in which neighbours of a sample in its bucket are in reach."""

    def locate_in_bucket(self, bucket: int, number: int) -> MixedPlace:
        """Return the place of the ``number``-th sample of a bucket."""
        ...

    def reach(self, bucket: int) -> int:
        """How many successive numbers of a bucket lie in about the same shards."""
        ...


@dataclass(frozen=True)
class RandomImages:
    """How to choose the independent images that are trained on beside a clip.

    They are frames of the samples that come near the clip's in its bucket, whose shards are open at that time anyway.
    """

    seed: int
    num_per_clip: int
    """k, at least 1."""
    order: ShuffledBuckets

    def choose(self, position: int, num_frames: int) -> list[tuple[MixedPlace, int]]:
        """Return the place of each image's clip, and the image's frame in it; the clip's own is left out if it can."""
        bucket, number = self.order.bucket_of(position)
        generator = randomness.generator(self.seed, "image", position)
        reach = max(2, self.order.reach(bucket))
        distances = torch.randint(1, reach, (self.num_per_clip,), generator=generator)
        frames = torch.randint(num_frames, (self.num_per_clip,), generator=generator)
        places = (self.order.locate_in_bucket(bucket, number + int(distance)) for distance in distances)
        return [(place, int(frame)) for place, frame in zip(places, frames, strict=True)]


class _Label(NamedTuple):
    caption: str = ""
    label: int = -1
    class_name: str = ""
    fps: float = 1.0
    motion: float | None = None
    """Of the whole stored clip, where it was measured beforehand."""


class _Wanted(NamedTuple):
    """What is to be read for one position: its sample, and those of the images beside it."""

    position: int
    places: tuple[MixedPlace, ...]
    frames: tuple[int, ...]
    """Of each image."""


class _PixelBuffers(NamedTuple):
    """Memory for the pixels of one clip: views of the batch's tensors."""

    video: UInt8[Tensor, "c t h w"]
    """Zero frames if only latents are read; one if the model also needs the first frame."""
    images: UInt8[Tensor, "c k h w"]


Crop = tuple[int, int, int, int]
"""Rows and columns of a clip as stored, first row and column of its crop."""


class _Clip(NamedTuple):
    """What a batch has of one clip, but for pixels."""

    key: str
    latents: Float[Tensor, "d t2 h2 w2"] | None
    text: TextEmbedding | None
    motion: float
    label: _Label
    weight: float
    crop: Crop
    image_labels: tuple[_Label, ...]
    image_crops: tuple[Crop, ...]


DrawNoise = Callable[[Sequence[int], Shape], Tensor]
"""Noise of clips by their positions and shape: a clip's latents and those of its independent images, each."""


class ClipDataset(Dataset[LoadedBatch]):
    """Batches by the positions of their samples.

    Args:
        readers: Source of each set's samples.
        order: Where each position's sample lies.
        buckets: The buckets of the order.
        sampling: What is taken of a stored clip.
        seed: Seed of what is random in that.
        label_names: Names of each set's classes, which its labels are indices into; where there are none, labels are
            not read.
        latent_shapes: Shape of the stored latents by shape of the clip, to read them in place of pixels; None reads
            pixels.
        empty_text: Stored text embedding of the empty caption, to read those of captions as well; None reads none.
        images: Images to put beside each clip, or None.
        period: Number of positions after which the samples repeat, to overfit one batch; None for the order as it is.
        image_conditions: Whether to bring what image-to-video models are told: the first frame's pixels, also where
            latents are read, and how much moves.
        draw_noise: Draws the noise that training adds, by positions and shape of the clips; None leaves it to the step.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        order: Order,
        buckets: Sequence[Bucket],
        sampling: ClipSampling,
        seed: int,
        label_names: Sequence[Sequence[str]],
        latent_shapes: Mapping[Shape, LatentShape] | None = None,
        empty_text: TextEmbedding | None = None,
        images: RandomImages | None = None,
        period: int | None = None,
        image_conditions: bool = False,
        draw_noise: DrawNoise | None = None,
    ) -> None:
        self._readers = readers
        self._order = order
        self._buckets = buckets
        self._sampling = sampling
        self._seed = seed
        self._latent_shapes = latent_shapes
        self._empty_text = empty_text
        pixels = {VIDEO, *PICTURES} if latent_shapes is None or image_conditions else set()
        pixels_or_latents = pixels | (set() if latent_shapes is None else {LATENTS})
        self._files = _METADATA | pixels_or_latents | (set() if empty_text is None else {TEXT})
        self._images = images
        self._period = period
        self._image_conditions = image_conditions
        self._label_names = label_names
        self._draw_noise = draw_noise

    def __getitem__(self, batch: MicroBatch) -> LoadedBatch:
        """Load a micro-batch; padding and bad samples become blank clips of weight 0."""
        shape = self._buckets[self._order.bucket_of(self._repeated(batch.first))[0]].shape
        wanted = {p: self._wanted(p, shape) for p in batch.positions if p != PADDING}
        raws = self._read([place for one in wanted.values() for place in one.places])
        videos, images = self._empty_pixels(len(batch.positions), shape)
        clips: list[_Clip] = []
        faults: list[Fault] = []
        for position, buffers in zip(batch.positions, map(_PixelBuffers, videos, images), strict=True):
            clip: _Clip | None = None
            if position != PADDING:
                try:
                    clip = self._make(wanted[position], raws, buffers, shape)
                except BadSampleError as error:
                    faults.append(error.fault)
            clips.append(clip or self._blank(buffers, shape))
        collated = self._collate(batch.positions, clips, videos, images)
        if self._draw_noise is not None:
            collated = replace(collated, noise=self._draw_noise(batch.positions, shape))
        return collated, tuple(faults)

    def _empty_pixels(
        self, num_clips: int, shape: Shape
    ) -> tuple[UInt8[Tensor, "b c t h w"], UInt8[Tensor, "b c k h w"]]:
        """Return buffers for the videos and images of a batch, for each frame to be copied once."""
        num_frames = shape[0] if self._latent_shapes is None else int(self._image_conditions)
        num_images = self._images.num_per_clip if self._images else 0
        return empty_clips(num_clips, num_frames, *shape[1:]), empty_clips(num_clips, num_images, *shape[1:])

    def _repeated(self, position: int) -> int:
        return position % self._period if self._period else position

    def _wanted(self, position: int, shape: Shape) -> _Wanted:
        position = self._repeated(position)
        images = self._images.choose(position, shape[0]) if self._images else []
        places = (self._order.locate(position), *(place for place, _ in images))
        return _Wanted(position, places, tuple(frame for _, frame in images))

    def _read(self, places: Sequence[MixedPlace]) -> dict[MixedPlace, RawSample | BadSampleError]:
        """Read all that a batch needs at once, set by set."""
        found: dict[MixedPlace, RawSample | BadSampleError] = {}
        for number, reader in enumerate(self._readers):
            of_set = list(dict.fromkeys(place for place in places if place.set == number))
            found |= zip(of_set, reader.read([self._request(place) for place in of_set]), strict=True)
        return found

    def _request(self, place: MixedPlace) -> Request:
        stored = self._buckets[place.bucket].stored[place.set]
        return Request(place.place.shard, place.place.sample, stored, self._files)

    def _make(
        self, wanted: _Wanted, raws: dict[MixedPlace, RawSample | BadSampleError], buffers: _PixelBuffers, shape: Shape
    ) -> _Clip:
        """Make a clip of what was read, with pixels and images in ``buffers``; one bad file makes it bad."""
        samples = [_good(raws[place]) for place in wanted.places]
        names = [self._label_names[place.set] for place in wanted.places]
        labels = [
            self._label(raw, of_set, wanted.position, number)
            for number, (raw, of_set) in enumerate(zip(samples, names, strict=True))
        ]
        cut = self._sampling.cut(samples[0].stored, shape, _words(labels[0]), self._seed, wanted.position)
        latents = None
        if self._latent_shapes is not None:
            latents = self._latents(samples[0], self._latent_shapes[shape], wanted.position)
        if buffers.video.shape[1] > 0:
            _decode(samples[0], cut if latents is None else _first_frame(cut), buffers.video)
        motion = self._motion(samples[0], labels[0], cut, buffers.video) if self._image_conditions else 0.0
        image_crops: list[Crop] = []
        for i, (raw, frame) in enumerate(zip(samples[1:], wanted.frames, strict=True)):
            image_cut = self._image_cut(raw, shape, labels[i + 1], wanted.position, i, frame)
            _decode(raw, image_cut, buffers.images[:, i : i + 1])
            image_crops.append(_crop(raw.stored.shape, image_cut))
        return _Clip(
            key=samples[0].key,
            latents=latents,
            text=self._text(samples[0]),
            motion=motion,
            label=labels[0],
            weight=1.0,
            crop=_crop(samples[0].stored.shape, cut),
            image_labels=tuple(labels[1:]),
            image_crops=tuple(image_crops),
        )

    def _label(self, raw: RawSample, class_names: Sequence[str], position: int, number: int) -> _Label:
        """Return what is said of a clip (``number`` 0) or of an image beside it (from 1 on)."""
        place = f"{position} image {number - 1}" if number else position
        return _parse_label(raw, self._sampling, class_names, self._seed, place)

    def _latents(self, raw: RawSample, expected: LatentShape, position: int) -> Float[Tensor, "d t2 h2 w2"]:
        if LATENTS not in raw.members:
            raise raw.bad(f"has no member .{LATENTS}")
        try:
            return read_latents(raw.members[LATENTS], expected, self._seed, position)
        except UnusableLatentsError as error:
            raise raw.bad(error) from error

    def _motion(self, raw: RawSample, label: _Label, cut: Cut, video: UInt8[Tensor, "c t h w"]) -> float:
        """Return how much moves in what is seen of a clip: as it was measured beforehand, if that is all of it."""
        if label.motion is not None and len(cut.frames) == raw.stored.shape[0]:
            return label.motion
        return motion_of(video if self._latent_shapes is None else _decode(raw, cut), label.fps)

    def _text(self, raw: RawSample) -> TextEmbedding | None:
        if self._empty_text is None:
            return None
        if TEXT not in raw.members:
            raise raw.bad(f"has no member .{TEXT}")
        try:
            return read_text(raw.members[TEXT], len(self._empty_text.pooled))
        except UnusableTextError as error:
            raise raw.bad(error) from error

    def _image_cut(self, raw: RawSample, shape: Shape, label: _Label, position: int, image: int, frame: int) -> Cut:
        cut = self._sampling.cut(raw.stored, shape, _words(label), self._seed, f"{position} image {image}")
        return Cut(cut.frames[frame : frame + 1], cut.scaled, cut.top, cut.left, cut.size, cut.mirrored)

    def _blank(self, buffers: _PixelBuffers, shape: Shape) -> _Clip:
        """Make a clip of weight 0; clear ``buffers``, which a bad sample may have filled in part."""
        for pixels in buffers:
            pixels.zero_()
        latents = None if self._latent_shapes is None else torch.zeros(self._latent_shapes[shape])
        crop, k = _crop(shape, Cut.whole(shape)), buffers.images.shape[1]
        return _Clip("", latents, self._empty_text, 0.0, _Label(), 0.0, crop, (_Label(),) * k, (crop,) * k)

    def _collate(
        self,
        positions: Sequence[int],
        clips: Sequence[_Clip],
        videos: UInt8[Tensor, "b c t h w"],
        images: UInt8[Tensor, "b c k h w"],
    ) -> ClipBatch:
        return ClipBatch(
            video=videos,
            captions=tuple(clip.label.caption for clip in clips),
            labels=torch.tensor([clip.label.label for clip in clips]),
            positions=torch.tensor(positions),
            weights=torch.tensor([clip.weight for clip in clips]),
            keys=tuple(clip.key for clip in clips),
            fps=torch.tensor([clip.label.fps for clip in clips]),
            images=_collate_images(clips, images) if self._images else None,
            latents=_collate_latents(clips),
            text=_collate_text([clip.text for clip in clips]),
            empty_text=_collate_text([self._empty_text]),
            motion=torch.tensor([clip.motion for clip in clips]) if self._image_conditions else None,
            crops=torch.tensor([clip.crop for clip in clips]),
        )


def _crop(stored: Shape, cut: Cut) -> Crop:
    return (*stored[1:], cut.top, cut.left)


def _good(raw: RawSample | BadSampleError) -> RawSample:
    if isinstance(raw, BadSampleError):
        raise raw
    return raw


def _decode(raw: RawSample, cut: Cut, out: UInt8[Tensor, "c t h w"] | None = None) -> UInt8[Tensor, "c t h w"]:
    extension = pixels_of(raw.members)
    if extension not in raw.members:
        raise raw.bad(f"has no member .{VIDEO}")
    decode = decode_clip if extension == VIDEO else decode_picture
    try:
        return decode(raw.members[extension], raw.stored.shape, cut, out)
    except UndecodableClipError as error:
        raise raw.bad(error) from error


def _first_frame(cut: Cut) -> Cut:
    return replace(cut, frames=cut.frames[:1])


def _collate_latents(clips: Sequence[_Clip]) -> Float[Tensor, "b d t2 h2 w2"] | None:
    latents = [clip.latents for clip in clips if clip.latents is not None]
    if not latents:
        return None
    kinds = {one.dtype for one, clip in zip(latents, clips, strict=True) if clip.weight > 0}
    kind = kinds.pop() if len(kinds) == 1 else torch.float32
    return torch.stack([one.to(kind) for one in latents])


def _collate_text(embeddings: Sequence[TextEmbedding | None]) -> TextEmbeddings | None:
    found = [embedding for embedding in embeddings if embedding is not None]
    return TextEmbeddings.padded(found) if found else None


def _collate_images(clips: Sequence[_Clip], pixels: UInt8[Tensor, "b c k h w"]) -> ImageBatch:
    return ImageBatch(
        pixels=pixels,
        captions=tuple(tuple(image.caption for image in clip.image_labels) for clip in clips),
        labels=torch.tensor([[image.label for image in clip.image_labels] for clip in clips]),
        crops=torch.tensor([clip.image_crops for clip in clips]),
    )


def _words(label: _Label) -> str:
    """Return all that is said of a clip: its caption, and the name of its class."""
    return f"{label.caption}\n{label.class_name}"


def _parse_label(
    raw: RawSample, sampling: ClipSampling, class_names: Sequence[str], seed: int, position: int | str
) -> _Label:
    """Read a caption, a class and a frame rate out of a sample's ``.json``, or else its ``.txt`` and its index."""
    try:
        metadata = parse_metadata(raw.members.get("json", b"{}"))
        caption = _draw_caption(captions_of(metadata, raw.members.get("txt", b"")), seed, position)
        label = _class_of(metadata.get("label"), len(class_names))
        fps = float(raw.stored.fps or metadata.get("fps") or 1.0)
        if not 0 < fps < math.inf:
            raise ValueError(f"fps={fps}")
        motion, seen_fps = stored_motion(metadata, fps), fps / (sampling.stride(raw.stored) or 1)
        return _Label(caption, label, class_names[label] if label >= 0 else "", seen_fps, motion)
    except MALFORMED as error:
        raise raw.bad(f"its metadata is malformed ({error!r})") from error


def _draw_caption(captions: Sequence[str], seed: int, position: int | str) -> str:
    """Return one of a sample's captions, the same for the same seed and position; empty if there is none."""
    if len(captions) < 2:
        return captions[0] if captions else ""
    number = torch.randint(len(captions), (1,), generator=randomness.generator(seed, "caption", position))
    return captions[int(number)]


def _class_of(label: Any, num_classes: int) -> int:
    """Return the class that a sample's ``.json`` has, -1 if it has none, or the set names none."""
    if label is None or num_classes == 0:
        return -1
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < num_classes:
        raise ValueError(f"label {label!r} is none of the {num_classes} classes")
    return label
