"""LoRA files that were made elsewhere, and files in the names that ComfyUI reads.

One layer is two tensors, and perhaps a third: ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight`` (peft, diffusers) or
``LAYER.lora_down.weight`` and ``LAYER.lora_up.weight`` (Kohya), and ``LAYER.alpha``. Layers are named as in diffusers
behind ``base_model.model.`` or ``transformer.``, as by Wan's authors behind ``diffusion_model.`` or nothing, or as by
these with ``_`` for ``.`` behind ``lora_unet_`` (Kohya).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from vdm.found_instead import found_instead
from vdm.models.lora import Addition
from vdm.models.pretrained.stored import StoredTensors, refuse_eight_bits
from vdm.models.pretrained.wan_names import from_underscores, our_names, wan_names
from vdm.outside import MAX_BYTES, parse_object, read_json, typed
from vdm.ranges import Positive

_TENSOR = re.compile(r"([\w.]+?)\.(lora_A|lora_down|lora_B|lora_up|alpha)(?:\.default)?(?:\.weight)?")
_PREFIXES = ("base_model.model.", "transformer.", "unet.", "diffusion_model.")
_KOHYA = "lora_unet_"
_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""Files in the folders of peft and diffusers, in the order in which they are looked for."""
METADATA = "lora_adapter_metadata"
"""Key of the settings of peft in the metadata of a file of diffusers."""


@dataclass(frozen=True)
class PeftConfig:
    """The keys that are read from peft's ``adapter_config.json``, with the values that are supported."""

    lora_alpha: Positive
    alpha_pattern: dict[str, Positive] | None = None
    use_rslora: bool = False
    use_dora: Literal[False] = False
    peft_type: Literal["LORA"] = "LORA"

    def scale(self, layer: str, rank: int) -> float:
        """Return the factor of the product in a layer."""
        own = (alpha for name, alpha in (self.alpha_pattern or {}).items() if _is_named(layer, name))
        return next(own, self.lora_alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def check_names(self, layers: Iterable[str], source: object) -> None:
        """Refuse patterns that name no layer; peft takes any regular expression, and here only names are understood.

        Raises:
            ValueError: In one line.
        """
        layers = list(layers)
        for name in self.alpha_pattern or {}:
            if not any(_is_named(layer, name) for layer in layers):
                raise ValueError(f"{source}: alpha_pattern: {name!r} must be the name of a layer with LoRA")


@dataclass(frozen=True)
class LoRAFile:
    """An opened file: the shapes are known, and its tensors are read on access."""

    file: Path
    stored: StoredTensors
    names: Mapping[str, Mapping[str, str]]
    """By the name of each layer here: the names of its tensors ``down``, ``up`` and, if it is there, ``alpha``."""
    config: PeftConfig | None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file, or the file in a folder of peft or diffusers.

        Raises:
            ValueError: In one line, if it is no file of LoRA for linear layers.
        """
        file = _file(path)
        stored = StoredTensors.open([file])
        names = _layers(stored, file)
        refuse_eight_bits(stored, file)
        opened = cls(file, stored, names, _peft_config(stored, file))
        if opened.config is not None:
            opened.config.check_names(names, file)
        for layer in names:
            opened.rank(layer)
        return opened

    def rank(self, layer: str) -> int:
        """Return the rank of a layer.

        Raises:
            ValueError: If its two tensors do not fit each other.
        """
        down, up = (self.stored.shapes[self.names[layer][part]] for part in ("down", "up"))
        if len(down) != 2 or len(up) != 2 or down[0] != up[1] or down[0] < 1:
            raise ValueError(f"{self.file}: {layer} has shapes {down} and {up}: no LoRA of a linear layer")
        return down[0]

    def size(self, layer: str) -> tuple[int, int]:
        """Return the numbers of inputs and outputs of a layer."""
        return self.stored.shapes[self.names[layer]["down"]][1], self.stored.shapes[self.names[layer]["up"]][0]

    def scale(self, layer: str) -> float:
        """Return alpha / rank of a layer; 1 if the file names no alpha.

        Raises:
            ValueError: If alpha is no number above 0.
        """
        rank, name = self.rank(layer), self.names[layer].get("alpha")
        if name is None:
            return 1.0 if self.config is None else self.config.scale(layer, rank)
        alpha = self.stored[name].float()
        if alpha.numel() != 1 or not 0 < alpha.item() < math.inf:
            raise ValueError(f"{self.file}: {name} must be one number above 0")
        return alpha.item() / rank

    @property
    def common_scale(self) -> float:
        """The most frequent alpha / rank of the layers."""
        return Counter(map(self.scale, self.names)).most_common(1)[0][0]

    def addition(self, layer: str) -> Addition:
        """Read what is added to a layer."""
        down, up = (self.stored[self.names[layer][part]] for part in ("down", "up"))
        return Addition(down, up, self.scale(layer) * len(down))


def comfyui_tensors(additions: Mapping[str, Addition]) -> dict[str, Tensor]:
    """Return LoRA of a network of Wan in the names that ComfyUI reads, and diffusers too.

    diffusers reads an alpha only in blocks; elsewhere the factor is part of the product.

    Args:
        additions: LoRA of each layer, by the layer's name.

    Raises:
        ValueError: If Wan's own files have no such layer.
    """
    tensors: dict[str, Tensor] = {}
    for layer, name in wan_names(additions).items():
        addition, prefix, is_in_block = additions[layer], f"diffusion_model.{name}", name.startswith("blocks.")
        tensors[f"{prefix}.lora_A.weight"] = addition.down.contiguous()
        tensors[f"{prefix}.lora_B.weight"] = (addition.up if is_in_block else addition.scale * addition.up).contiguous()
        if is_in_block:
            tensors[f"{prefix}.alpha"] = torch.tensor(float(addition.alpha))
    return tensors


def _file(path: Path) -> Path:
    if path.is_dir():
        for name in _NAMES:
            if (path / name).is_file():
                return path / name
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            held = f"holds {len(files)} safetensors files: name one of them" if files else "holds no LoRA"
            raise ValueError(f"{path}: {held}{'' if files else found_instead(path)}")
        return files[0]
    if path.exists() and path.suffix != ".safetensors":
        raise ValueError(f"{path}: not a safetensors file; a pickle (.bin, .pt) can run code when it is read")
    return path


def _layers(stored: StoredTensors, file: Path) -> dict[str, dict[str, str]]:
    parts = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up", "alpha": "alpha"}
    names: dict[str, dict[str, str]] = {}
    for name in stored:
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise ValueError(f"{file}: {name} is no part of a LoRA for a linear layer")
        layer, part = _layer(match.group(1)), parts[match.group(2)]
        if part in names.setdefault(layer, {}):
            raise ValueError(f"{file}: {layer} has {part} under two names")
        names[layer][part] = name
    for layer, found in names.items():
        if not {"down", "up"} <= found.keys():
            raise ValueError(f"{file}: {layer} has not both parts of a LoRA")
    if not names:
        raise ValueError(f"{file}: there is no LoRA in it")
    return names


def _is_named(layer: str, pattern: str) -> bool:
    """Return whether a key of ``alpha_pattern`` is the name of a layer, or the end of one, here or of the authors."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    return any(layer == each or layer.endswith(f".{each}") for each in {name, _layer(name)})


def _layer(name: str) -> str:
    """Return the name of a layer here."""
    if name.startswith(_KOHYA):
        return from_underscores(name.removeprefix(_KOHYA)) or name
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return our_names([name])[name]


def _peft_config(stored: StoredTensors, file: Path) -> PeftConfig | None:
    """Return the settings of peft, which stand in a file beside the weights or in their metadata."""
    beside = file.parent / "adapter_config.json"
    if file.name == _NAMES[0] and beside.is_file():
        return typed(PeftConfig, read_json(beside), beside)
    text = stored.metadata(file).get(METADATA)
    if text is None:
        return None
    if len(text) > MAX_BYTES:
        raise ValueError(f"{file}: {METADATA} is longer than {MAX_BYTES} characters")
    settings: dict[str, Any] = parse_object(text, f"{file}: {METADATA}")
    own = {name.partition(".")[2]: value for name, value in settings.items() if name.startswith(_PREFIXES)}
    return typed(PeftConfig, own, f"{file}: {METADATA}")
