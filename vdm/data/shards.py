"""The shard schema: tar files, and an index beside them that records their content.

A shard set is a folder::

    index.json                splits, classes, frame rate, and encoders of stored latents and text embeddings
    shards.parquet            a row for each shard: size, checksum, and number of samples of each kind
    train-000000.tar          a WebDataset shard: KEY.mp4, KEY.json, KEY.mp4, ...
    train-000000.index.json   sidecar of the shard: offset, length and checksum of every member
    validation-000000.tar     ...

These further members of a sample are read if it has them: ``.txt`` (a caption), ``.latents.safetensors`` (see
``StoredLatents``) and ``.text.safetensors`` (see ``StoredText``). Instead of ``.mp4`` there may be a picture: ``.jpg``,
``.png`` or ``.webp`` is a clip of one frame.

WebDataset readers need the ``.tar`` files alone. The index gives random access and detects damage: without it, nobody
notices a tar that was cut at the edge of a member, or a flipped bit. ``index.py`` reads and writes it,
``sidecars.py`` the sidecars.
"""

import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from vdm.regular_files import open_regular

Shape = tuple[int, int, int]
"""Size of a clip: (t frames, h rows, w columns)."""
_SHAPE = re.compile(r"([1-9]\d{0,8})x([1-9]\d{0,5})x([1-9]\d{0,5})")
MAX_FRAMES, MAX_SIDE = 10**9 - 1, 10**6 - 1
"""Limits of a clip in an index."""
MAX_PIXELS = 1 << 26
"""Pixels of a decoded frame or picture: twice those of 8K. FFmpeg holds up to 16 frames while it decodes."""
MAX_MEMBER_BYTES = 1 << 31
"""Size of a file of a sample; training reads it whole."""
MAX_METADATA_BYTES = 1 << 24
"""Size of a sample's ``.json`` or ``.txt``."""
MAX_PICTURE_BYTES = 1 << 28

VIDEO, LATENTS, TEXT = "mp4", "latents.safetensors", "text.safetensors"
PICTURES = ("jpg", "jpeg", "png", "webp")
"""Extensions of a sample's files."""
HOW_TO_REMAKE = (
    "build the set again or, if its tars are from elsewhere, delete index.json and `vdm-data index` it again"
)
EMPTY_TEXT_NAME = "empty_text.safetensors"
"""File in a set's folder with the text embedding of the empty caption; see ``StoredText``."""


class Kind(NamedTuple):
    """Shape and frame rate of a stored clip; the index counts samples by kind."""

    shape: Shape
    fps: float | None = None
    """Frames per second, if it is not the rate of the whole set."""

    @property
    def name(self) -> str:
        """Short name of the kind: ``16x256x256``, ``16x256x256@24.0``."""
        size = "x".join(map(str, self.shape))
        return size if self.fps is None else f"{size}@{self.fps!r}"

    def of_set(self, fps: float | None) -> "Kind":
        """Return the kind with its rate, given the rate ``fps`` of the set; pictures have none."""
        return Kind(self.shape, fps) if self.fps is None and self.shape[0] > 1 else self

    @staticmethod
    def parse(name: str) -> "Kind":
        """Invert ``name``.

        Raises:
            ValueError: If ``name`` is something else.
        """
        size, _, fps = name.partition("@")
        rate = float(fps) if fps else None
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"{name!r} is no kind of clips")
        return Kind(parse_shape(size), rate)


def parse_shape(name: str) -> Shape:
    """Return the shape of a name such as ``16x256x256``.

    Raises:
        ValueError: If the name is malformed.
    """
    if (found := _SHAPE.fullmatch(name)) is None:
        raise ValueError(f"{name[:80]!r} is no frames x rows x columns")
    t, h, w = map(int, found.groups())
    return t, h, w


def max_bytes_of(extension: str) -> int:
    """Return the greatest size in bytes of a sample's file with this extension."""
    if extension in ("json", "txt"):
        return MAX_METADATA_BYTES
    return MAX_PICTURE_BYTES if extension in PICTURES else MAX_MEMBER_BYTES


@dataclass(frozen=True, slots=True)
class Member:
    """Place of a sample's file in its tar."""

    offset: int
    """First byte of the payload, counted from the start of the tar."""
    length: int
    """Bytes of the payload, without the tar's padding."""
    checksum: str
    """``checksum`` of the payload."""


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """One clip of a shard."""

    key: str
    shape: Shape
    members: Mapping[str, Member]
    """By extension, without a dot: ``"mp4"``, ``"json"``."""
    fps: float | None = None
    """Frames per second, if the sample's ``.json`` is from elsewhere and may lack it."""

    @property
    def kind(self) -> Kind:
        """Kind of the stored clip."""
        return Kind(self.shape, self.fps)


@dataclass(frozen=True)
class ShardEntry:
    """Entry of the index for one shard."""

    name: str
    """File name of the tar in the set's folder."""
    num_bytes: int
    checksum: str
    """``checksum`` of the whole tar."""
    kinds: Mapping[Kind, int]
    """Number of samples of each kind."""
    keys: str
    """``digest_of`` the names of its samples, in order: their keys, independent of their bytes.

    The keys of sets from elsewhere are often plain numbers; their names include the checksums of clips.
    """

    @property
    def num_samples(self) -> int:
        """Number of samples of all kinds."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class StoredLatents:
    """The latents that every sample of a set has beside its clip, in ``KEY.latents.safetensors``.

    The file has the tensor ``latents`` (c t h w), the autoencoder's output for the clip. If it also has ``std`` of the
    same shape, ``latents`` is the mean of a normal distribution and ``std`` its standard deviation.
    """

    encoder: Mapping[str, Any]
    """Identity of the autoencoder, from its ``identity()``: checksum of its weights, scale.

    Further entries such as ``name`` are for people; only the keys of ``identity()`` are compared.
    """
    shapes: Mapping[Shape, tuple[int, int, int, int]]
    """Channels, frames, rows and columns of the latents, by shape of the clip."""


@dataclass(frozen=True)
class StoredText:
    """The text embeddings that every sample of a set has beside its clip, in ``KEY.text.safetensors``.

    That file has the tensors ``tokens`` (l d), an embedding of each token without padding, and ``pooled`` (d): what the
    text encoder returns for the sample's caption. ``EMPTY_TEXT_NAME`` in the set's folder has the same tensors for the
    empty caption, which stands for "no condition". ``vdm.data.text_embeddings`` writes and reads such files.
    """

    encoder: Mapping[str, Any]
    """Identity of the text encoder, from its ``identity()``: checksum of its weights, ``max_tokens``.

    Further entries such as ``name`` are for people; only the keys of ``identity()`` are compared.
    """
    channels: int
    """Width d of the embeddings."""
    empty_checksum: str
    """``checksum`` of ``EMPTY_TEXT_NAME``."""


CHECKSUM_BYTES = 16
"""Length of a ``checksum``; it is written as twice as many hexadecimal digits."""


def checksum(data: bytes | bytearray | memoryview) -> str:
    """Return the 128-bit XXH3 digest of ``data`` in hexadecimal.

    It detects damage, not forgery, at the speed of memory; a cryptographic digest took a third of the time of reading
    latents.
    """
    return xxhash.xxh3_128_hexdigest(data)


def file_checksum(path: Path) -> str:
    """Return the ``checksum`` of a file's content, without holding it in memory."""
    with open_regular(path) as file:
        return stream_checksum(file)


def stream_checksum(file: io.BufferedIOBase) -> str:
    """Return the ``checksum`` of the rest of an open file, without holding it in memory."""
    digest = xxhash.xxh3_128()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def shard_of(
    name: str, num_bytes: int, checksum: str, samples: Sequence[SampleEntry], keys: Sequence[str] | None = None
) -> ShardEntry:
    """Return the index's entry for a tar of ``samples``.

    Args:
        name: See ``ShardEntry``, as for ``num_bytes`` and ``checksum``.
        num_bytes: Of the tar.
        checksum: Of the tar.
        samples: In order.
        keys: Name of each sample for ``ShardEntry.keys``; None takes their keys.
    """
    told_by = [sample.key for sample in samples] if keys is None else keys
    return ShardEntry(name, num_bytes, checksum, count_kinds(samples), digest_of(told_by))


def count_kinds(samples: Sequence[SampleEntry]) -> dict[Kind, int]:
    """Return the number of samples of each kind."""
    return dict(Counter(sample.kind for sample in samples))


def digest_of(names: Sequence[str]) -> str:
    """Return a digest of names in their order."""
    return checksum(json.dumps(list(names)).encode())
