"""Names of the network's weights in the files of Wan's authors, such as ``diffusion_pytorch_model.safetensors``.

This project has the names of diffusers. The authors' files have one name for each of these, with the same tensor in it.
What they call ``norm3`` is the normalization before attention to text, which diffusers calls ``norm2``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "model.diffusion_model."
"""Prefix of the names in files that ComfyUI saved."""
_ENDS = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
"""Layers before and after the blocks."""
_IN_BLOCK = {
    "scale_shift_table": "modulation",
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""Layers of a block."""
HEAD_CHANNELS = 128
"""Width of an attention head of every published network; it can't be told from the shapes of weights."""


def wan_names(names: Iterable[str]) -> dict[str, str]:
    """Map the name of each weight or layer here to its name in the authors' files.

    Raises:
        ValueError: If they have no such weight.
    """
    found = {name: _renamed(name, _ENDS, _IN_BLOCK) for name in names}
    for name, theirs in found.items():
        if theirs is None:
            raise ValueError(f"Wan's own files have no {name}")
    return {name: theirs for name, theirs in found.items() if theirs is not None}


def our_names(names: Iterable[str]) -> dict[str, str]:
    """Map the name of each weight or layer in the authors' files to its name here.

    Names that they don't have keep their form, by which they are reported.

    Raises:
        ValueError: If two of them are names of the same weight.
    """
    ends, in_block = ({theirs: ours for ours, theirs in table.items()} for table in (_ENDS, _IN_BLOCK))
    plain = {name: name.removeprefix(PREFIX) for name in names}
    found = {name: _renamed(theirs, ends, in_block) or theirs for name, theirs in plain.items()}
    if len(set(found.values())) < len(found):
        twice = next(ours for ours, times in Counter(found.values()).items() if times > 1)
        raise ValueError(f"{twice} is there under two names")
    return found


def _renamed(name: str, ends: Mapping[str, str], in_block: Mapping[str, str]) -> str | None:
    """Return the other name of a weight or layer; None if there is none."""
    block = re.match(r"blocks\.\d+\.", name)
    prefix, table = (block.group(), in_block) if block else ("", ends)
    own = name.removeprefix(prefix)
    layer, _, kind = own.rpartition(".")
    if own in table:
        return prefix + table[own]
    return f"{prefix}{table[layer]}.{kind}" if layer in table else None


def from_underscores(layer: str) -> str | None:
    """Return the name here of a layer that is written with ``_`` for ``.``, as in Kohya's files; None if unknown."""
    block = re.match(r"blocks_(\d+)_", layer)
    prefix, table = (f"blocks.{block.group(1)}.", _IN_BLOCK) if block else ("", _ENDS)
    own = layer[block.end() :] if block else layer
    found = next((ours for ours, theirs in table.items() if theirs.replace(".", "_") == own), None)
    return None if found is None else prefix + found


def network_config(shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """Return the ``config.json`` with which diffusers would build the network of a file.

    Args:
        shapes: Shape of each tensor of the file, by name.

    Raises:
        ValueError: If they are not the shapes of such a network.
    """
    shapes = {name.removeprefix(PREFIX): shape for name, shape in shapes.items()}
    if "blocks.0.attn1.to_q.weight" in shapes:
        raise ValueError("its names are those of diffusers: give the folder of the pipeline that it is from")
    try:
        channels, in_channels, _, *patch = shapes["patch_embedding.weight"]
        area = patch[0] * patch[1]
        image_channels = shapes.get("img_emb.proj.1.weight", [0, 0])[1]
        positions = shapes.get("img_emb.emb_pos", [0, 0])[1]
        config = {
            "_class_name": "WanTransformer3DModel",
            "num_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
            "num_attention_heads": channels // HEAD_CHANNELS,
            "attention_head_dim": HEAD_CHANNELS,
            "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
            "in_channels": in_channels,
            "out_channels": shapes["head.head.weight"][0] // area,
            "text_dim": shapes["text_embedding.0.weight"][1],
            "patch_size": [1, *patch],
            "image_dim": image_channels or None,
            "added_kv_proj_dim": channels if image_channels else None,
            "pos_embed_seq_len": positions or None,
        }
    except KeyError as error:
        raise ValueError(f"not a network of Wan: {error.args[0]} is missing") from None
    except (IndexError, ValueError, ZeroDivisionError):
        raise ValueError("not a network of Wan: its weights have other shapes") from None
    if channels % HEAD_CHANNELS:
        raise ValueError(f"not a network of Wan: its width of {channels} is no multiple of {HEAD_CHANNELS}")
    return config
