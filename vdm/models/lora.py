"""Low-rank adaptation (Hu et al. 2021): linear layers that stay, and to which a product of two is added."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DOWN, _UP = "lora_A.weight", "lora_B.weight"
"""Ends of names, as peft and diffusers have them."""


class LoRALinear(nn.Linear):
    """A linear layer plus ``lora_B lora_A``, which is zero at first; ``weight`` and ``bias`` keep their names.

    Args:
        linear: The layer, whose weights are taken over.
        rank: Width between the two.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        place = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, **place)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, **place)
        nn.init.zeros_(self.lora_B.weight)
        # The fused TransformerEncoderLayer of evaluation takes weights alone, unless a layer in it has hooks.
        self.register_forward_pre_hook(_nothing)

    def forward(self, input: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """Apply the layer and what is added to it."""
        return super().forward(input) + self.lora_B(self.lora_A(input))


def _nothing(module: nn.Module, inputs: object) -> None:
    pass


def add_lora(model: nn.Module, layers: Sequence[str], rank: int) -> int:
    """Freeze a model, and adapt linear layers in it; return how many.

    Layers whose weights are frozen already have no effect on the output, or are no part of what is trained.

    Args:
        model: The model.
        layers: Names of layers, in which ``*`` stands for anything.
        rank: Width of what is added.

    Raises:
        ValueError: If one of the layers is never called, since what it belongs to takes its weight alone.
    """
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and any(fnmatchcase(name, pattern) for pattern in layers)
    ]
    for name, _ in chosen:
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
            raise ValueError(
                f"layers={list(layers)}: {name} can't be adapted: PyTorch's attention takes its weight alone; give"
                " names that leave it out"
            )
    model.requires_grad_(False)
    for name, linear in chosen:
        owner, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(owner), own_name, LoRALinear(linear, rank))
    return len(chosen)


@torch.no_grad()
def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in which what LoRA adds is part of the layers' own: ``weight + lora_B lora_A``."""
    result = {name: tensor for name, tensor in weights.items() if not is_added(name)}
    for layer in _adapted(weights):
        own = weights[f"{layer}weight"]
        added = weights[f"{layer}{_UP}"].float() @ weights[f"{layer}{_DOWN}"].float()
        result[f"{layer}weight"] = (own.float() + added).to(own.dtype)
    return result


def adapter(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return what LoRA adds to the module whose names begin with ``prefix``, by names without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix) and is_added(name)
    }


def adapted_outside(weights: Iterable[str], prefix: str) -> str | None:
    """Return the name of a layer with LoRA that is none of those whose names begin with ``prefix``, if there is one."""
    outside = (name for name in weights if is_added(name) and not name.startswith(prefix))
    return next((name.removesuffix(_DOWN).removesuffix(_UP).removesuffix(".") for name in outside), None)


def is_added(name: str) -> bool:
    """Tell whether a weight is one that LoRA adds."""
    return name.endswith((_DOWN, _UP))


def _adapted(weights: Mapping[str, Tensor]) -> list[str]:
    return [name.removesuffix(_DOWN) for name in weights if name.endswith(_DOWN)]
