"""Wan's text encoder as its authors save it: ``models_t5_umt5-xxl-enc-bf16.pth``, the encoder of UMT5-XXL."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.models.pickled_tensors import filled, pickled_tensors, shape_of

_ENDS = {
    "shared": "token_embedding",
    "encoder.embed_tokens": "token_embedding",
    "encoder.final_layer_norm": "norm",
}
_IN_BLOCK = {
    "layer.0.layer_norm": "norm1",
    "layer.0.SelfAttention.q": "attn.q",
    "layer.0.SelfAttention.k": "attn.k",
    "layer.0.SelfAttention.v": "attn.v",
    "layer.0.SelfAttention.o": "attn.o",
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.1.layer_norm": "norm2",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
}


def load_text_encoder(file: Path) -> Any:
    """Return transformers' ``UMT5EncoderModel`` with the weights of a file.

    Raises:
        ValueError: In one line, which does not name the file, if it can't be read without running code, or holds
            another model.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    tensors = pickled_tensors(file)
    try:
        options = text_encoder_options(tensors)
    except ValueError as error:
        raise ValueError(f"not a text encoder of Wan: {error}") from None
    module = filled(lambda: UMT5EncoderModel(UMT5Config(**options)), tensors, authors_name)
    module.tie_weights()  # one copy of the embedding of words
    return module


def text_encoder_options(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of ``UMT5Config`` for the tensors of a file.

    Raises:
        ValueError: If a size is missing or out of range.
    """
    words, width = shape_of(tensors, "token_embedding.weight", 2)
    buckets, heads = shape_of(tensors, "blocks.0.pos_embedding.embedding.weight", 2)
    inner, hidden = (shape_of(tensors, f"blocks.0.{name}.weight", 2)[0] for name in ("attn.q", "ffn.fc1"))
    layers = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    if min(words, width, buckets, heads, hidden) < 1 or max(width, hidden, heads, buckets) > 2**16 or layers > 100:
        raise ValueError(f"its sizes are {[words, width, hidden, heads, buckets, layers]}")
    if inner % heads:
        raise ValueError(f"its width of {inner} is not divided by its {heads} heads")
    return {
        "vocab_size": words,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def authors_name(name: str) -> str:
    """Return the name in the authors' file of a weight of ``UMT5EncoderModel``."""
    layer, _, kind = name.rpartition(".")
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{kind}"
    block = re.match(r"encoder\.block\.(\d+)\.", name)
    assert block is not None, name
    return f"blocks.{block.group(1)}.{_IN_BLOCK[layer.removeprefix(block.group())]}.{kind}"
