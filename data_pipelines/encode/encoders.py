"""Frozen encoders whose outputs are stored beside clips. They are pickled as their configurations."""

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
    """The autoencoder that makes the latents of clips."""

    node: str
    """Configuration of the autoencoder, as JSON."""
    precision: Precision

    def members(self, video: UInt8[np.ndarray, "t h w c"]) -> dict[str, bytes]:
        """Return the members with the latents of a clip, by extension."""
        from data_pipelines.encode.frozen import encode_clip  # imports torch, which clips alone do not need

        return {LATENTS: encode_clip(self.node, video, self.precision)}

    def stored(self, shape: Shape) -> StoredLatents:
        """Return the description of the latents in the index.

        Args:
            shape: Frames, rows and columns of the clips.

        Raises:
            ValueError: In one line, if the autoencoder can't be loaded or does not take clips of that shape.
        """
        from data_pipelines.encode.frozen import describe, latent_shape

        return StoredLatents(describe(self.node, "encoder"), {shape: latent_shape(self.node, shape)})


@dataclass(frozen=True)
class CaptionEncoder:
    """The text encoder that makes the embeddings of captions."""

    node: str
    """Configuration of the text encoder, as JSON."""
    precision: Precision

    def embed(self, captions: Iterable[str]) -> "dict[str, TextEmbedding]":
        """Return the embedding by caption."""
        from data_pipelines.encode.frozen import embed_caption

        return {caption: embed_caption(self.node, caption, self.precision) for caption in dict.fromkeys(captions)}

    def identity(self) -> Mapping[str, Any]:
        """Return the identity of the text encoder, which the index records.

        Raises:
            ValueError: In one line, if it can't be loaded.
        """
        from data_pipelines.encode.frozen import describe

        return describe(self.node, "text_encoder")
