"""Stored text embeddings, read instead of running a text encoder."""

from typing import NamedTuple

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from vdm.data.tensors import UnreadableTensorsError, read_tensors


class TextEmbedding(NamedTuple):
    """Output of a text encoder for one caption."""

    tokens: Float[Tensor, "l d"]
    """One embedding a token, without padding."""
    pooled: Float[Tensor, " d"]


class UnusableTextError(ValueError):
    """Bytes that are not the text embedding that the index describes."""


def write_text(embedding: TextEmbedding) -> bytes:
    """Return the content of a ``.text.safetensors``, in the embedding's own data type."""
    return save({name: tensor.contiguous() for name, tensor in embedding._asdict().items()})


def read_text(data: bytes | bytearray | memoryview, channels: int) -> TextEmbedding:
    """Return the embedding, in fp32, of one caption.

    Args:
        data: A safetensors file; see ``vdm.data.shards.StoredText``.
        channels: Width that it must have.

    Raises:
        UnusableTextError: If it is damaged or of another shape.
    """
    try:
        tensors = read_tensors(data)
    except UnreadableTensorsError as error:
        raise UnusableTextError(f"its text embedding can't be read: {error}") from None
    tokens, pooled = tensors.get("tokens"), tensors.get("pooled")
    if tokens is None or pooled is None:
        raise UnusableTextError("its text embedding lacks the tensor 'tokens' or 'pooled'")
    if tokens.ndim != 2 or len(tokens) == 0 or tokens.shape[1] != channels or tuple(pooled.shape) != (channels,):
        raise UnusableTextError(
            f"its text embedding has shapes {tuple(tokens.shape)} and {tuple(pooled.shape)} where the index records "
            f"a width of {channels}"
        )
    return TextEmbedding(tokens.float(), pooled.float())
