"""What crosses the borders between packages: immutable records of tensors.

Letters in shapes are always ``b`` clips, ``c`` channels, ``t`` frames, ``h`` rows, ``w`` columns, ``l`` tokens,
``d`` and ``e`` features and ``k`` independent images that are trained on beside a clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, cast

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad


def _map_tensors(value: object, function: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, TensorRecord):
        return value.map(function)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, function) for key, item in cast(Mapping[str, object], value).items()}
    return value


@dataclass(frozen=True)
class TensorRecord:
    """A frozen dataclass whose tensors move together."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy in which each tensor, also in nested records, is ``function(tensor)``."""
        changed = {f.name: _map_tensors(getattr(self, f.name), function) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return a copy on ``device``, but for what stays on the host; data types stay as they are."""
        return self._map_but_host(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, from which copies to a GPU don't block."""
        return self._map_but_host(lambda tensor: tensor.pin_memory())

    def _map_but_host(self, function: Callable[[Tensor], Tensor]) -> Self:
        moved = [f.name for f in dataclasses.fields(self) if not f.metadata.get("on_host")]
        return dataclasses.replace(self, **{name: _map_tensors(getattr(self, name), function) for name in moved})


ON_HOST = {"on_host": True}
"""Metadata of a record's field that stays in the CPU's memory: Python reads it, and no kernel does."""


@dataclass(frozen=True)
class ClipSize:
    """Size of a video in frames and pixels."""

    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class TextEmbeddings(TensorRecord):
    """What a text encoder made of captions, one entry a caption."""

    tokens: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]
    """True where a token is real, False where it is padding."""
    pooled: Float[Tensor, "b d"]

    @staticmethod
    def padded(captions: Sequence[tuple[Float[Tensor, "_ d"], Float[Tensor, " d"]]]) -> TextEmbeddings:
        """Collect the tokens and the pooled embedding of each caption."""
        longest = max(len(tokens) for tokens, _ in captions)
        mask = torch.tensor([[place < len(tokens) for place in range(longest)] for tokens, _ in captions])
        rows = [pad(tokens, (0, 0, 0, longest - len(tokens))) for tokens, _ in captions]
        return TextEmbeddings(torch.stack(rows), mask, torch.stack([pooled for _, pooled in captions]))

    def replaced(self, where: Bool[Tensor, " b"], other: TextEmbeddings) -> TextEmbeddings:
        """Return these embeddings, but the only one of ``other`` where ``where`` is True."""
        longest, chosen = max(self.mask.shape[1], other.mask.shape[1]), where.to(self.mask.device)
        own, its = self._lengthened(longest), other._lengthened(longest)
        return TextEmbeddings(
            torch.where(chosen[:, None, None], its.tokens, own.tokens),
            torch.where(chosen[:, None], its.mask, own.mask),
            torch.where(chosen[:, None], its.pooled, own.pooled),
        )

    def _lengthened(self, length: int) -> TextEmbeddings:
        room = length - self.mask.shape[1]
        return TextEmbeddings(pad(self.tokens, (0, 0, 0, room)), pad(self.mask, (0, room)), self.pooled)


@dataclass(frozen=True)
class ImageBatch(TensorRecord):
    """Independent images trained on beside the clips, ``k`` to a clip (Ho et al. 2022, section 3.1)."""

    pixels: UInt8[Tensor, "b c k h w"]
    captions: tuple[tuple[str, ...], ...]
    """One caption an image: ``b`` tuples of ``k``."""
    labels: Int[Tensor, "b k"]
    """Class of each image, -1 where it has none."""
    crops: Int[Tensor, "b k 4"] | None = None
    """As in ``ClipBatch``."""


@dataclass(frozen=True)
class ClipBatch(TensorRecord):
    """What the loader hands to training: one micro-batch of clips."""

    video: UInt8[Tensor, "b c t h w"]
    """RGB, 0 to 255; where ``latents`` are read in their place, of no frames, or of the first alone."""
    captions: tuple[str, ...]
    """Empty where a clip has none."""
    labels: Int[Tensor, " b"]
    """Class index, -1 where a clip has none."""
    positions: Int[Tensor, " b"] = field(metadata=ON_HOST)
    """Place of each sample in the endless, seeded order of training; all its randomness derives from it."""
    weights: Float[Tensor, " b"] = field(metadata=ON_HOST)
    """Factor of each clip's loss: 1, or 0 for padding and for samples that proved bad."""
    keys: tuple[str, ...]
    """Name of each sample in its shard."""
    fps: Float[Tensor, " b"]
    """Frames per second of each clip as it is shown to the network."""
    images: ImageBatch | None = None
    latents: Float[Tensor, "b d t2 h2 w2"] | None = None
    """What the encoder makes of each clip, where the shards have it, in the data type that they have it in."""
    noise: Float[Tensor, "b d t3 h2 w2"] | None = None
    """Noise to be added to the latents of the clips and of their images, where it was drawn ahead of the step."""
    text: TextEmbeddings | None = None
    """What the text encoder makes of each caption, where the shards have it."""
    empty_text: TextEmbeddings | None = None
    """One entry: what it makes of the empty caption."""
    motion: Float[Tensor, " b"] | None = None
    """How much moves in each clip; see ``vdm.data.motion``."""
    crops: Int[Tensor, "b 4"] | None = None
    """Rows and columns of each clip as stored, and the first row and column of the crop after scaling: what SDXL takes
    as conditions (Podell et al. 2023, section 2.2)."""

    def __len__(self) -> int:
        return self.video.shape[0]


@dataclass(frozen=True)
class Conditioning(TensorRecord):
    """What guides the network; each part is ``None`` where the model has no such condition."""

    text: Float[Tensor, "b l d"] | Float[Tensor, "b t l d"] | None = None
    """Token embeddings, one sequence a clip, or one a frame where independent images ride along."""
    text_mask: Bool[Tensor, "b l"] | Bool[Tensor, "b t l"] | None = None
    """True where a token is real, False where it is padding."""
    vector: Float[Tensor, "b e"] | Float[Tensor, "b t e"] | None = None
    """Embedding added to that of the noise level: pooled text, class label."""
    image: Float[Tensor, "b c t h w"] | None = None
    """Latents of the given first frame for every frame, and a last channel of 1 where given and 0 where not."""
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Further named conditions of a network of one's own."""


@dataclass(frozen=True)
class NoisedLatents(TensorRecord):
    """Clean latents and their noised version ``xt = alpha_t x0 + sigma_t noise``."""

    x0: Float[Tensor, "b c t h w"]
    noise: Float[Tensor, "b c t h w"]
    xt: Float[Tensor, "b c t h w"]
    t: Float[Tensor, "b *frames"]
    """Time in [0, 1] of each clip, or of each frame (``b t``); 0 is data."""
    alpha: Float[Tensor, "b *frames"]
    sigma: Float[Tensor, "b *frames"]
