"""Folders as diffusers writes them: one sub-folder a component, with ``config.json`` and weights, sharded or not."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdm.models.svd.unet import SVDUNet

PIPELINE = "StableVideoDiffusionPipeline"
UNET = "UNetSpatioTemporalConditionModel"
STEM = "diffusion_pytorch_model"
"""Of the files with a network's weights."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: If there is no such file, or something else in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return content


def weight_files(folder: Path, variant: str | None = None, stem: str = STEM) -> list[Path]:
    """Return the safetensors files of one component.

    Args:
        folder: The component's folder.
        variant: As in the files' names, e.g. ``fp16``. None takes the files without a variant, or else the only one.
        stem: Beginning of the files' names.

    Raises:
        ValueError: If there are none, if they are pickles, or if several variants leave a choice.
    """
    found = _variants(folder, stem)
    if not found:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        if pickles:
            raise ValueError(
                f"{folder / pickles[0]}: a pickle can run code when it is read, so only safetensors are; convert it"
                " with diffusers (save_pretrained writes safetensors)"
            )
        raise ValueError(f"{folder}: there is no {stem}.safetensors")
    if variant is None and None not in found and len(found) > 1:
        raise ValueError(f"{folder}: choose variant={' or variant='.join(map(str, found))}")
    chosen = next(iter(found)) if variant is None and None not in found else variant
    if chosen not in found:
        raise ValueError(f"variant={variant}: {folder} holds {', '.join(str(name or 'null') for name in found)}")
    file = found[chosen]
    return [file] if file.suffix == ".safetensors" else _shards(file)


def _variants(folder: Path, stem: str) -> dict[str | None, Path]:
    """Return each variant's file of weights, or of the list of its shards."""
    patterns = (
        rf"{re.escape(stem)}(?:\.(?P<variant>[^.-]+))?\.safetensors",
        rf"{re.escape(stem)}\.safetensors\.index(?:\.(?P<variant>[^.]+))?\.json",
    )
    found: dict[str | None, Path] = {}
    for pattern in patterns:
        for path in sorted(folder.glob(f"{stem}*")):
            match = re.fullmatch(pattern, path.name)
            if match:
                found.setdefault(match.group("variant"), path)
    return found


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: there is no weight_map in it")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index}: {name} is not the name of a safetensors file beside it")
    return [index.parent / name for name in names]


def network_options(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return the arguments of ``SVDUNet`` that make the network of a ``config.json``.

    Raises:
        ValueError: If it describes another network, or one that ``SVDUNet`` is not.
    """
    if config.get("_class_name") != UNET:
        raise ValueError(f"{source}: holds a {config.get('_class_name', 'model of unknown kind')}, not a {UNET}")
    try:
        channels = list(config["block_out_channels"])
        attends = [name.startswith("CrossAttn") for name in config["down_block_types"]]
        mirrored = [name.startswith("CrossAttn") for name in reversed(config["up_block_types"])]
        time_ids, rest = divmod(config["projection_class_embeddings_input_dim"], config["addition_time_embed_dim"])
        heads = config["num_attention_heads"]
        options = {
            "channels": channels,
            "in_channels": config["out_channels"],
            "num_heads": [heads] * len(channels) if isinstance(heads, int) else list(heads),
            "num_blocks": _same(config["layers_per_block"], "layers_per_block", source),
            "attention_levels": [level for level, attending in enumerate(attends) if attending],
            "transformer_layers": _same(config["transformer_layers_per_block"], "transformer_layers_per_block", source),
            "context_channels": _same(config["cross_attention_dim"], "cross_attention_dim", source),
            "time_id_channels": config["addition_time_embed_dim"],
            "num_time_ids": time_ids,
        }
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{source}: {error} is missing or of another kind") from None
    if attends != mirrored or config["in_channels"] != 2 * config["out_channels"] or rest:
        raise ValueError(f"{source}: a network whose two halves differ, or whose image has other channels than latents")
    return options


def _same(value: int | list[int], name: str, source: object) -> int:
    """Return a number that may be given once for each level."""
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise ValueError(f"{source}: {name}={value}: must be the same at every level")
    return values.pop()


def network_config(network: SVDUNet, num_frames: int, sample_size: int | list[int] | None) -> dict[str, Any]:
    """Return the ``config.json`` from which diffusers makes the same network.

    Args:
        network: The network.
        num_frames: Frames that diffusers generates unless told otherwise.
        sample_size: Height and width of the latents that diffusers generates unless told otherwise.
    """
    attends = [level in network.attention_levels for level in range(len(network.channels))]
    return {
        "_class_name": UNET,
        "sample_size": sample_size,
        "in_channels": 2 * network.in_channels,
        "out_channels": network.in_channels,
        "down_block_types": [_block(attending, "Down") for attending in attends],
        "up_block_types": [_block(attending, "Up") for attending in reversed(attends)],
        "block_out_channels": list(network.channels),
        "addition_time_embed_dim": network.time_id_channels,
        "projection_class_embeddings_input_dim": network.num_time_ids * network.time_id_channels,
        "layers_per_block": network.num_blocks,
        "cross_attention_dim": network.context_channels,
        "transformer_layers_per_block": network.transformer_layers,
        "num_attention_heads": list(network.num_heads),
        "num_frames": num_frames,
    }


def _block(attending: bool, direction: str) -> str:
    return f"{'CrossAttn' if attending else ''}{direction}BlockSpatioTemporal"
