"""Loading of batches of clips by positions in the order of samples; runs in the loader's workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vdm.data.clips import ClipSampling, Cut
from vdm.data.collation import Crop, LoadedClip, collate
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_picture, empty_clips
from vdm.data.labels import ClipLabel, parse_label, words_of
from vdm.data.latents import LatentShape, UnusableLatentsError, read_latents
from vdm.data.mixing import Bucket, MixedPlace, Order
from vdm.data.motion import motion_of
from vdm.data.order import PADDING, MicroBatch
from vdm.data.quarantine import BadSampleError, Fault
from vdm.data.random_images import RandomImages
from vdm.data.reading import LATENTS, PICTURES, TEXT, VIDEO, RawSample, Request, ShardReader, pixels_of
from vdm.data.shards import Shape
from vdm.data.text_embeddings import TextEmbedding, UnusableTextError, read_text
from vdm.types import ClipBatch

LoadedBatch = tuple[ClipBatch, tuple[Fault, ...]]
"""A batch, and the faults of its clips of weight 0."""

_METADATA = frozenset({"json", "txt"})


class _Wanted(NamedTuple):
    """Places to read for one position: those of its clip and of the images beside it."""

    position: int
    places: tuple[MixedPlace, ...]
    frames: tuple[int, ...]
    """Which frame of its clip each image is."""


class _PixelBuffers(NamedTuple):
    """Memory for the pixels of one clip: views of the batch's tensors."""

    video: UInt8[Tensor, "c t h w"]
    """Zero frames if only latents are read, unless the model also needs the first frame, or all."""
    images: UInt8[Tensor, "c k h w"]


NoiseSource = Callable[[Sequence[int], Shape], Tensor]
"""Noise of clips by positions and shape, for the latents of each clip and of its independent images."""


class ClipDataset(Dataset[LoadedBatch]):
    """Batches by the positions of their samples.

    Args:
        readers: Source of each set's samples.
        order: Where each position's sample lies.
        buckets: The buckets of the order.
        sampling: How stored clips are sampled.
        seed: Seed of the random choices in the sampling.
        label_names: Names of each set's classes, to which its labels are indices; without names, labels are not
            read.
        latent_shapes: Shape of the stored latents by shape of the clip, to read them in place of pixels; None reads
            pixels.
        empty_text: Stored text embedding of the empty caption, to read those of captions as well; None reads none.
        images: Images to put beside each clip, or None.
        period: Number of positions after which the samples repeat, to overfit one batch; None for the order as it is.
        pixels_beside_latents: The frames whose pixels are read beside latents.
        has_motion: Whether batches have the motion of clips.
        noise_source: Draws the noise that training adds; None leaves this to the training step.
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
        pixels_beside_latents: Literal["none", "first", "all"] = "none",
        has_motion: bool = False,
        noise_source: NoiseSource | None = None,
    ) -> None:
        self._readers = readers
        self._order = order
        self._buckets = buckets
        self._sampling = sampling
        self._seed = seed
        self._latent_shapes = latent_shapes
        self._empty_text = empty_text
        has_pixels = latent_shapes is None or pixels_beside_latents != "none" or has_motion
        pixels = {VIDEO, *PICTURES} if has_pixels else set()
        pixels_or_latents = pixels | (set() if latent_shapes is None else {LATENTS})
        self._files = _METADATA | pixels_or_latents | (set() if empty_text is None else {TEXT})
        self._images = images
        self._period = period
        self._pixels_beside_latents = pixels_beside_latents
        self._has_motion = has_motion
        self._label_names = label_names
        self._noise_source = noise_source

    def __getitem__(self, batch: MicroBatch) -> LoadedBatch:
        """Load a micro-batch; padding and bad samples become blank clips of weight 0."""
        shape = self._buckets[self._order.bucket_of(self._repeated(batch.first))[0]].shape
        wanted = {p: self._wanted(p, shape) for p in batch.positions if p != PADDING}
        raws = self._read([place for one in wanted.values() for place in one.places])
        videos, images = self._empty_pixels(len(batch.positions), shape)
        clips: list[LoadedClip] = []
        faults: list[Fault] = []
        for position, buffers in zip(batch.positions, map(_PixelBuffers, videos, images), strict=True):
            clip: LoadedClip | None = None
            if position != PADDING:
                try:
                    clip = self._make(wanted[position], raws, buffers, shape)
                except BadSampleError as error:
                    faults.append(error.fault)
            clips.append(clip or self._blank(buffers, shape))
        collated = collate(
            batch.positions,
            clips,
            videos,
            images if self._images else None,
            self._empty_text,
            has_motion=self._has_motion,
        )
        if self._noise_source is not None:
            collated = replace(collated, noise=self._noise_source(batch.positions, shape))
        return collated, tuple(faults)

    def _empty_pixels(
        self, num_clips: int, shape: Shape
    ) -> tuple[UInt8[Tensor, "b c t h w"], UInt8[Tensor, "b c k h w"]]:
        """Return buffers for the videos and images of a batch, for each frame to be copied once."""
        beside_latents = {"none": 0, "first": 1, "all": shape[0]}[self._pixels_beside_latents]
        num_frames = shape[0] if self._latent_shapes is None else beside_latents
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
        """Read all samples of a batch at once, set by set."""
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
    ) -> LoadedClip:
        """Return a clip; write its pixels and those of its images to ``buffers``. One bad file makes the clip bad."""
        samples = [_good(raws[place]) for place in wanted.places]
        names = [self._label_names[place.set] for place in wanted.places]
        labels = [
            self._label(raw, of_set, wanted.position, number)
            for number, (raw, of_set) in enumerate(zip(samples, names, strict=True))
        ]
        cut = self._sampling.cut(samples[0].stored, shape, words_of(labels[0]), self._seed, wanted.position)
        latents = None
        if self._latent_shapes is not None:
            latents = self._latents(samples[0], self._latent_shapes[shape], wanted.position)
        if buffers.video.shape[1] > 0:
            # What is read beside latents may be the first frame alone.
            _decode(samples[0], replace(cut, frames=cut.frames[: buffers.video.shape[1]]), buffers.video)
        motion = self._motion(samples[0], labels[0], cut, buffers.video) if self._has_motion else 0.0
        image_crops: list[Crop] = []
        for i, (raw, frame) in enumerate(zip(samples[1:], wanted.frames, strict=True)):
            image_cut = self._image_cut(raw, shape, labels[i + 1], wanted.position, i, frame)
            _decode(raw, image_cut, buffers.images[:, i : i + 1])
            image_crops.append(_crop(raw.stored.shape, image_cut))
        return LoadedClip(
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

    def _label(self, raw: RawSample, class_names: Sequence[str], position: int, number: int) -> ClipLabel:
        """Return the label of a clip (``number`` 0) or of an image beside it (from 1 on)."""
        place = f"{position} image {number - 1}" if number else position
        return parse_label(raw, self._sampling, class_names, self._seed, place)

    def _latents(self, raw: RawSample, expected: LatentShape, position: int) -> Float[Tensor, "d t2 h2 w2"]:
        if LATENTS not in raw.members:
            raise raw.bad(f"has no member .{LATENTS}")
        try:
            return read_latents(raw.members[LATENTS], expected, self._seed, position)
        except UnusableLatentsError as error:
            raise raw.bad(error) from error

    def _motion(self, raw: RawSample, label: ClipLabel, cut: Cut, video: UInt8[Tensor, "c t h w"]) -> float:
        """Return the motion of a sampled clip: the stored value if the whole clip is used, else a measurement."""
        if label.motion is not None and len(cut.frames) == raw.stored.shape[0]:
            return label.motion
        return motion_of(video if video.shape[1] == len(cut.frames) else _decode(raw, cut), label.fps)

    def _text(self, raw: RawSample) -> TextEmbedding | None:
        if self._empty_text is None:
            return None
        if TEXT not in raw.members:
            raise raw.bad(f"has no member .{TEXT}")
        try:
            return read_text(raw.members[TEXT], len(self._empty_text.pooled))
        except UnusableTextError as error:
            raise raw.bad(error) from error

    def _image_cut(self, raw: RawSample, shape: Shape, label: ClipLabel, position: int, image: int, frame: int) -> Cut:
        cut = self._sampling.cut(raw.stored, shape, words_of(label), self._seed, f"{position} image {image}")
        return Cut(cut.frames[frame : frame + 1], cut.scaled, cut.top, cut.left, cut.size, cut.flipped)

    def _blank(self, buffers: _PixelBuffers, shape: Shape) -> LoadedClip:
        """Return a clip of weight 0; clear ``buffers``, which a bad sample may have filled in part."""
        for pixels in buffers:
            pixels.zero_()
        latents = None if self._latent_shapes is None else torch.zeros(self._latent_shapes[shape])
        crop, k = _crop(shape, Cut.whole(shape)), buffers.images.shape[1]
        return LoadedClip("", latents, self._empty_text, 0.0, ClipLabel(), 0.0, crop, (ClipLabel(),) * k, (crop,) * k)


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
