"""Low-rank adaptation (LoRA; Hu et al. 2021) of linear layers."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DOWN, _UP = "lora_A.weight", "lora_B.weight"
"""Suffixes of the names of the added weights, as in peft and diffusers."""


class LoRALinear(nn.Linear):
    """A linear layer plus the product ``lora_B lora_A``, which is zero at initialization.

    ``weight`` and ``bias`` keep their names.

    Args:
        linear: The layer, whose weights are reused.
        rank: Rank of the product.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        # Those of the layer may be read from files only later, but the added weights need their initial values now.
        device = "cpu" if linear.weight.is_meta else linear.weight.device
        place = {"device": device, "dtype": linear.weight.dtype}
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, **place)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, **place)
        nn.init.zeros_(self.lora_B.weight)
        # In evaluation, TransformerEncoderLayer has a fused path that reads weights alone; a hook disables that path.
        self.register_forward_pre_hook(_nothing)

    def forward(self, input: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """Apply the layer and add the low-rank product."""
        return super().forward(input) + self.lora_B(self.lora_A(input))


def _nothing(module: nn.Module, inputs: object) -> None:
    pass


def add_lora(model: nn.Module, layers: Sequence[str], rank: int) -> int:
    """Freeze a model and add LoRA to linear layers in it; return the number of these layers.

    Layers that are frozen already are skipped: they have no effect on the output, or are pretrained modules.

    Args:
        model: The model.
        layers: Patterns of layer names, in which ``*`` matches anything.
        rank: Rank of the added products.

    Raises:
        ValueError: If one of the layers belongs to a module that reads its weight without calling it.
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
                f"layers={list(layers)}: {name} can't be adapted: PyTorch's attention reads its weight without"
                " calling it; exclude it from layers"
            )
    model.requires_grad_(False)
    for name, linear in chosen:
        owner, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(owner), own_name, LoRALinear(linear, rank))
    return len(chosen)


@torch.no_grad()
def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with LoRA merged into the layers: ``weight + lora_B lora_A``."""
    result = {name: tensor for name, tensor in weights.items() if not is_added(name)}
    for layer in _adapted(weights):
        own = weights[f"{layer}weight"]
        added = weights[f"{layer}{_UP}"].float() @ weights[f"{layer}{_DOWN}"].float()
        result[f"{layer}weight"] = (own.float() + added).to(own.dtype)
    return result


def adapter(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the LoRA weights whose names begin with ``prefix``, by their names without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix) and is_added(name)
    }


def adapted_outside(weights: Iterable[str], prefix: str) -> str | None:
    """Return the name of a layer with LoRA whose name does not begin with ``prefix``; None if there is none."""
    outside = (name for name in weights if is_added(name) and not name.startswith(prefix))
    return next((name.removesuffix(_DOWN).removesuffix(_UP).removesuffix(".") for name in outside), None)


def factors_of(name: str) -> tuple[str, str]:
    """Return the names of the added weights ``lora_A`` and ``lora_B`` of a layer's weight, if LoRA adapts the layer."""
    layer = name.removesuffix("weight")
    return f"{layer}{_DOWN}", f"{layer}{_UP}"


def is_added(name: str) -> bool:
    """Return whether a weight was added by LoRA."""
    return name.endswith((_DOWN, _UP))


def _adapted(weights: Mapping[str, Tensor]) -> list[str]:
    return [name.removesuffix(_DOWN) for name in weights if name.endswith(_DOWN)]
