"""Choice of the weights that are trained; all others stay unchanged, bit for bit."""

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from torch import nn

from vdm.models.lora import LoRALinear, add_lora, put
from vdm.models.pretrained.lora_files import LoRAFile
from vdm.ranges import Location, Positive, Texts, Width


class Tuning(Protocol):
    """Chooses the trained weights of a model."""

    def apply(self, model: nn.Module) -> None:
        """Freeze all other weights.

        Raises:
            ValueError: If no weight is left to train.
        """
        ...


@dataclass(frozen=True)
class ChosenWeights:
    """Train the weights of some names.

    Args:
        names: Names in the model, in which ``*`` stands for anything: ``network.*temporal*``.
    """

    names: Texts

    def apply(self, model: nn.Module) -> None:
        """Freeze all weights that match none of the names.

        Raises:
            ValueError: If no trained weight matches.
        """
        trainable = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        chosen = {name for name, _ in trainable if any(fnmatchcase(name, pattern) for pattern in self.names)}
        if not chosen:
            examples = ", ".join(name for name, _ in trainable[:2])
            raise ValueError(f"names={list(self.names)}: the model's weights have other names, such as {examples}")
        for name, weight in trainable:
            weight.requires_grad_(name in chosen)


_ATTENTION = ("network.*.to_*", "network.*.add_?_proj")
"""Names of the linear layers of attention, as diffusers has them."""
_RANK = 16


@dataclass(frozen=True)
class LoRA:
    """Train low-rank additions to linear layers alone (Hu et al. 2021), as peft's ``LoraConfig`` describes them.

    Args:
        layers: Names of linear layers, in which ``*`` stands for anything: ``network.*.to_q``. None for the layers of
            attention, or for those of the file.
        rank: Rank of the addition to each layer, which has rank * (inputs + outputs) weights. None for 16, or for the
            largest in the file.
        alpha: The addition is multiplied by alpha / rank. None for the rank, or for that of the file.
        file: LoRA of the network, made here or elsewhere, with which training begins; see
            ``vdm.models.pretrained.lora_files``. None to begin with additions of zero.
    """

    layers: Texts | None = None
    rank: Width | None = None
    alpha: Positive | None = None
    file: Location | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank must be at least 1, but is {self.rank}")

    def settled(self) -> "LoRA":
        """Return the same with values in the place of None.

        Raises:
            ValueError: If the file can't be read, or its LoRA has no place in ``layers`` and ``rank``.
        """
        if self.file is None:
            rank = self.rank or _RANK
            return replace(self, layers=self.layers or _ATTENTION, rank=rank, alpha=self.alpha or rank)
        opened = LoRAFile.open(Path(self.file))
        names, largest = [f"network.{layer}" for layer in opened.names], max(map(opened.rank, opened.names))
        layers, rank = self.layers or _patterns(names), self.rank or largest
        if other := next((name for name in names if not _matches(name, layers)), None):
            raise ValueError(
                f"file={self.file}: has {other}, which is not in layers={list(layers)}; null takes the file's"
            )
        if rank < largest:
            raise ValueError(f"file={self.file}: has rank {largest}, but rank={rank}; null takes the file's")
        return replace(self, layers=layers, rank=rank, alpha=self.alpha or opened.common_scale * rank)

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and add trained low-rank weights to its layers.

        Raises:
            ValueError: If no linear layer matches, or the file can't be read or was made for another network.
        """
        own = self.settled()
        linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        opened = None if own.file is None else LoRAFile.open(Path(own.file))
        if opened is not None:
            _check_base(opened, linear)
        assert own.layers
        assert own.rank
        if add_lora(model, own.layers, own.rank, own.alpha) == 0:
            examples = ", ".join(list(linear)[:2])
            raise ValueError(f"layers={list(own.layers)}: the model's linear layers are called otherwise: {examples}")
        if opened is not None:
            _load(opened, model)


def _matches(name: str, patterns: Texts) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _patterns(names: list[str]) -> list[str]:
    """Return few patterns for the names of layers: one for the same layer of all blocks up to a number."""
    blocks: dict[str, set[int]] = {}
    for name in names:
        if match := re.fullmatch(r"network\.blocks\.(\d+)\.(.*)", name):
            blocks.setdefault(match.group(2), set()).add(int(match.group(1)))
    whole = {f"network.blocks.*.{layer}" for layer, numbers in blocks.items() if numbers == set(range(len(numbers)))}
    return [*sorted(whole), *(name for name in names if not _matches(name, list(whole)))]


def _check_base(opened: LoRAFile, linear: dict[str, nn.Linear]) -> None:
    """Refuse LoRA of a network with other layers.

    Raises:
        ValueError: In one line that names the first such layer.
    """
    for layer in opened.names:
        own, size = linear.get(f"network.{layer}"), opened.size(layer)
        if own is None:
            raise ValueError(
                f"file={opened.file}: is of another network: it has {layer}, which is no linear layer here"
            )
        if size != (own.in_features, own.out_features):
            raise ValueError(
                f"file={opened.file}: is of another network: its {layer} has {size[0]} inputs and {size[1]} outputs,"
                f" but here {own.in_features} and {own.out_features}"
            )


def _load(opened: LoRAFile, model: nn.Module) -> None:
    for layer in opened.names:
        own = model.get_submodule(f"network.{layer}")
        if not isinstance(own, LoRALinear):
            raise ValueError(f"file={opened.file}: {layer} is not trained in this model, so its LoRA has no place")
        if not own.lora_A.weight.is_meta:  # a plan needs no values
            put(opened.addition(layer), own)
