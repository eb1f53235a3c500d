"""Names of weights in Stability's single files, such as ``svd_xt.safetensors``.

In these files, a network is three lists of numbered blocks. The first member of a block is a residual block, the second
a transformer if the level has transformers, and the last a change of resolution. The weights of diffusers'
``spatial_res_block`` are named directly after the residual block, and temporal weights after ``time_stack``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from vdm.models.svd.unet import SVDUNet

PREFIX = "model.diffusion_model."
"""Prefix of the network's weights; the other weights of a file are the autoencoder and the image encoder."""

_EMBEDDINGS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "conv_in": "input_blocks.0.0",
}
_IN_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_IN_TRANSFORMER = {
    "temporal_transformer_blocks": "time_stack",
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}


def stability_names(network: SVDUNet) -> dict[str, str]:
    """Map the name of each weight of ``network`` to its name in Stability's files."""
    modules = dict(_modules(len(network.channels), network.num_blocks, network.attention_levels))
    return {name: PREFIX + _renamed(name, modules) for name in network.state_dict()}


def network_options(shapes: Mapping[str, list[int]]) -> dict[str, object]:
    """Return the arguments of ``SVDUNet`` for the network in one of Stability's files.

    Args:
        shapes: Shape of each tensor of the file, by name.

    Raises:
        ValueError: If they are not the shapes of such a network.
    """
    own = {name.removeprefix(PREFIX): shape for name, shape in shapes.items() if name.startswith(PREFIX)}
    try:
        inputs = _first_members(own, "input_blocks")
        downsamplings = [n for n in sorted(inputs) if "op.weight" in inputs[n]]
        num_blocks = downsamplings[0] - 1 if downsamplings else len(inputs) - 1
        first_of_level = [1, *[n + 1 for n in downsamplings]]
        channels = [own[f"input_blocks.{n}.0.in_layers.2.weight"][0] for n in first_of_level]
        attends = [level for level, n in enumerate(first_of_level) if f"input_blocks.{n}.1.proj_in.weight" in own]
        layers = {re.match(r"middle_block\.1\.transformer_blocks\.(\d+)\.", name) for name in own} - {None}
        return {
            "channels": channels,
            "in_channels": own["out.2.weight"][0],
            "num_heads": [width // 64 for width in channels],  # published configurations: num_head_channels: 64
            "num_blocks": num_blocks,
            "attention_levels": attends,
            "transformer_layers": len({match.group(1) for match in layers if match}),
            "context_channels": own["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
            "num_time_ids": own["label_emb.0.0.weight"][1] // 256,
        }
    except (KeyError, IndexError) as error:
        raise ValueError(f"not a network of Stable Video Diffusion: {PREFIX}{error.args[0]} is missing") from None


def _first_members(names: Iterable[str], blocks: str) -> dict[int, set[str]]:
    """Return the names of the weights in the first member of each numbered block."""
    found: dict[int, set[str]] = {}
    for name in names:
        match = re.match(rf"{blocks}\.(\d+)\.0\.(.*)", name)
        if match:
            found.setdefault(int(match.group(1)), set()).add(match.group(2))
    return found


def _modules(num_levels: int, num_blocks: int, attention_levels: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Yield the name of each residual block, transformer and change of resolution, here and in Stability's files."""
    attends = [level in set(attention_levels) for level in range(num_levels)]
    number = 1
    for level in range(num_levels):
        for block in range(num_blocks):
            yield f"down_blocks.{level}.resnets.{block}", f"input_blocks.{number}.0"
            yield f"down_blocks.{level}.attentions.{block}", f"input_blocks.{number}.1"
            number += 1
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
        number += 1
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
    number = 0
    for stage, level in enumerate(reversed(range(num_levels))):
        for block in range(num_blocks + 1):
            yield f"up_blocks.{stage}.resnets.{block}", f"output_blocks.{number}.0"
            yield f"up_blocks.{stage}.attentions.{block}", f"output_blocks.{number}.1"
            number += 1
        last = 2 if attends[level] else 1
        yield f"up_blocks.{stage}.upsamplers.0.conv", f"output_blocks.{number - 1}.{last}.conv"


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    """Return the name of a weight in Stability's files, without ``PREFIX``."""
    for ours, theirs in _EMBEDDINGS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    module = next(ours for ours in modules if name.startswith(f"{ours}."))
    inner = name.removeprefix(f"{module}.")
    if ".resnets." in module:
        part, _, inner = inner.partition(".")
        if part == "time_mixer":
            return f"{modules[module]}.time_mixer.{inner}"
        layer, _, kind = inner.partition(".")
        temporal = "time_stack." if part == "temporal_res_block" else ""
        return f"{modules[module]}.{temporal}{_IN_RESIDUAL[layer]}.{kind}"
    for ours, theirs in _IN_TRANSFORMER.items():
        if inner.startswith(f"{ours}."):
            inner = theirs + inner.removeprefix(ours)
    return f"{modules[module]}.{inner}"
