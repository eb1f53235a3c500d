"""Immutable records of tensors that packages pass to each other.

Letters in shapes are always ``b`` clips, ``c`` channels, ``t`` frames, ``h`` rows, ``w`` columns, ``l`` tokens,
``d`` and ``e`` features, and ``k`` independent images that are trained on with a clip.
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
    """A frozen dataclass of tensors that are moved and mapped together."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy in which each tensor, also in nested records, is replaced by ``function(tensor)``."""
        changed = {f.name: _map_tensors(getattr(self, f.name), function) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return a copy on ``device``; fields marked ``ON_HOST`` stay on the CPU. Data types don't change."""
        return self._map_but_host(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, from which copies to a GPU don't block."""
        return self._map_but_host(lambda tensor: tensor.pin_memory())

    def _map_but_host(self, function: Callable[[Tensor], Tensor]) -> Self:
        moved = [f.name for f in dataclasses.fields(self) if not f.metadata.get("on_host")]
        return dataclasses.replace(self, **{name: _map_tensors(getattr(self, name), function) for name in moved})


ON_HOST = {"on_host": True}
"""Metadata of a field that stays on the CPU, since Python reads it and no kernel does."""


@dataclass(frozen=True)
class ClipSize:
    """Size of a video in frames and pixels."""

    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class TextEmbeddings(TensorRecord):
    """Output of a text encoder, one entry a caption."""

    tokens: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"]
    """True for tokens, False for padding."""
    pooled: Float[Tensor, "b d"]

    @staticmethod
    def padded(captions: Sequence[tuple[Float[Tensor, "_ d"], Float[Tensor, " d"]]]) -> TextEmbeddings:
        """Stack the tokens, padded to the longest caption, and the pooled embedding of each caption."""
        longest = max(len(tokens) for tokens, _ in captions)
        mask = torch.tensor([[place < len(tokens) for place in range(longest)] for tokens, _ in captions])
        rows = [pad(tokens, (0, 0, 0, longest - len(tokens))) for tokens, _ in captions]
        return TextEmbeddings(torch.stack(rows), mask, torch.stack([pooled for _, pooled in captions]))

    def replaced(self, where: Bool[Tensor, " b"], other: TextEmbeddings) -> TextEmbeddings:
        """Return these embeddings, replaced by the single entry of ``other`` where ``where`` is True."""
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
    """Independent images that are trained on with the clips, ``k`` to a clip (Ho et al. 2022, section 3.1)."""

    pixels: UInt8[Tensor, "b c k h w"]
    captions: tuple[tuple[str, ...], ...]
    """One caption an image: ``b`` tuples of ``k``."""
    labels: Int[Tensor, "b k"]
    """Class index of each image, -1 for none."""
    crops: Int[Tensor, "b k 4"] | None = None
    """As in ``ClipBatch``."""


@dataclass(frozen=True)
class ClipBatch(TensorRecord):
    """One micro-batch of clips, as the loader passes it to training."""

    video: UInt8[Tensor, "b c t h w"]
    """RGB, 0 to 255. If ``latents`` are read instead, zero frames, unless the model also needs the first frame, or
    all."""
    captions: tuple[str, ...]
    """One a clip; empty for none."""
    labels: Int[Tensor, " b"]
    """Class index of each clip, -1 for none."""
    positions: Int[Tensor, " b"] = field(metadata=ON_HOST)
    """Position of each sample in the endless, seeded order of training, which determines all its random numbers."""
    weights: Float[Tensor, " b"] = field(metadata=ON_HOST)
    """Weight of each clip's loss: 1, or 0 for padding and for samples that could not be read."""
    keys: tuple[str, ...]
    """Name of each sample in its shard."""
    fps: Float[Tensor, " b"]
    """Frames per second of each clip, after frames were selected."""
    images: ImageBatch | None = None
    latents: Float[Tensor, "b d t2 h2 w2"] | None = None
    """Stored latents of each clip, in the data type of the shards. None if the shards have none."""
    noise: Float[Tensor, "b d t3 h2 w2"] | None = None
    """Noise to be added to the latents of the clips and of their images. None if the training step draws it."""
    text: TextEmbeddings | None = None
    """Stored embeddings of the captions. None if the shards have none."""
    empty_text: TextEmbeddings | None = None
    """Stored embeddings of the empty caption, one entry."""
    motion: Float[Tensor, " b"] | None = None
    """Amount of motion in each clip; see ``vdm.data.motion``."""
    crops: Int[Tensor, "b 4"] | None = None
    """Height and width of each clip as stored, then first row and column of the crop after scaling. Conditions of SDXL
    (Podell et al. 2023, section 2.2)."""

    def __len__(self) -> int:
        return self.video.shape[0]


@dataclass(frozen=True)
class Conditioning(TensorRecord):
    """Embedded conditions, the input of the network; a field is None if the model has no such condition."""

    text: Float[Tensor, "b l d"] | Float[Tensor, "b t l d"] | None = None
    """Token embeddings: one sequence a clip, or one a frame in batches with independent images."""
    text_mask: Bool[Tensor, "b l"] | Bool[Tensor, "b t l"] | None = None
    """True for tokens, False for padding."""
    vector: Float[Tensor, "b e"] | Float[Tensor, "b t e"] | None = None
    """Embedding added to that of the noise level: pooled text, class label."""
    image: Float[Tensor, "b c t h w"] | None = None
    """Channels that tell of given frames: of ``KnownFramesConditioner`` any; of ``EmbeddingConditioner`` the latents of
    the first frame, repeated for every frame, and a channel that is 1 if it is given, and 0 if not."""
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Further conditions by name, for networks that need them."""


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
