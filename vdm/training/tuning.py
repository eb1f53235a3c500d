"""Choice of the weights that are trained; all others stay unchanged, bit for bit."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from torch import nn

from vdm.models.lora import add_lora
from vdm.ranges import Texts, Width


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


@dataclass(frozen=True)
class LoRA:
    """Train low-rank additions to linear layers alone (Hu et al. 2021), as peft's ``LoraConfig`` with alpha = rank.

    Args:
        layers: Names of linear layers, in which ``*`` stands for anything: ``network.*.to_q``.
        rank: Rank of the addition to each layer, which has rank * (inputs + outputs) weights.
    """

    layers: Texts
    rank: Width = 16

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, but is {self.rank}")

    def apply(self, model: nn.Module) -> None:
        """Freeze the model, and add trained low-rank weights to its layers.

        Raises:
            ValueError: If no linear layer matches.
        """
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        if add_lora(model, self.layers, self.rank) == 0:
            examples = ", ".join(linear[:2])
            raise ValueError(f"layers={list(self.layers)}: the model's linear layers are called otherwise: {examples}")
