"""Frozen encoders whose results are stored beside clips, as they travel to other processes: by their configuration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.settings import Precision
from vdm.data.reading import LATENTS
from vdm.data.shards import Shape, StoredLatents

if TYPE_CHECKING:
    from vdm.data.text_embeddings import TextEmbedding


@dataclass(frozen=True)
class ClipEncoder:
    """Makes the latents of clips."""

    node: str
    """The configuration of the encoder, as JSON."""
    precision: Precision

    def members(self, video: UInt8[np.ndarray, "t h w c"]) -> dict[str, bytes]:
        """Return what a sample has of this encoder, by extension."""
        from data_pipelines.encode.frozen import encode_clip  # torch, which clips alone do not need

        return {LATENTS: encode_clip(self.node, video, self.precision)}

    def stored(self, shape: Shape) -> StoredLatents:
        """Return what the index says of the latents of clips of this shape.

        Raises:
            ValueError: In one line, if the encoder can't be loaded or takes no clips of that shape.
        """
        from data_pipelines.encode.frozen import describe, latent_shape

        return StoredLatents(describe(self.node, "encoder"), {shape: latent_shape(self.node, shape)})


@dataclass(frozen=True)
class CaptionEncoder:
    """Makes the embeddings of captions."""

    node: str
    """The configuration of the text encoder, as JSON."""
    precision: Precision

    def embed(self, captions: Iterable[str]) -> "dict[str, TextEmbedding]":
        """Return the embedding of each caption, one for all that are alike."""
        from data_pipelines.encode.frozen import embed_caption

        return {caption: embed_caption(self.node, caption, self.precision) for caption in dict.fromkeys(captions)}

    def identity(self) -> Mapping[str, Any]:
        """Return what the index says of the encoder.

        Raises:
            ValueError: In one line, if it can't be loaded.
        """
        from data_pipelines.encode.frozen import describe

        return describe(self.node, "text_encoder")
