"""Low-rank adaptation (LoRA; Hu et al. 2021) of linear layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

_DOWN, _UP = "lora_A.weight", "lora_B.weight"
"""Suffixes of the names of the added weights, as in peft and diffusers."""
_ALPHA = "lora_alpha"
"""Suffix of the name of alpha, which is saved with a layer unless it is the rank."""


@dataclass(frozen=True)
class Addition:
    """What LoRA adds to the weight of a linear layer: ``alpha / rank * up @ down``."""

    down: Float[Tensor, "r i"]
    up: Float[Tensor, "o r"]
    alpha: float

    @property
    def rank(self) -> int:
        """Rank of the product."""
        return len(self.down)

    @property
    def scale(self) -> float:
        """Factor of the product."""
        return self.alpha / self.rank


class LoRALinear(nn.Linear):
    """A linear layer plus ``alpha / rank lora_B lora_A``, which is zero at initialization.

    ``weight`` and ``bias`` keep their names.

    Args:
        linear: The layer, whose weights are reused.
        rank: Rank of the product.
        alpha: See above. None for the rank.
    """

    lora_alpha: Tensor | None

    def __init__(self, linear: nn.Linear, rank: int, alpha: float | None = None) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        # Those of the layer may be read from files only later, but the added weights need their initial values now.
        device = "cpu" if linear.weight.is_meta else linear.weight.device
        place = {"device": device, "dtype": linear.weight.dtype}
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, **place)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, **place)
        nn.init.zeros_(self.lora_B.weight)
        # A buffer, so that checkpoints tell how to merge.
        alpha = float(rank if alpha is None else alpha)
        self.register_buffer(_ALPHA, None if alpha == rank else torch.tensor(alpha, device=place["device"]))
        self.scale = alpha / rank
        # In evaluation, TransformerEncoderLayer has a fused path that reads weights alone; a hook disables that path.
        self.register_forward_pre_hook(_nothing)

    def forward(self, input: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """Apply the layer and add the low-rank product."""
        added = self.lora_B(self.lora_A(input))
        return super().forward(input) + (added if self.lora_alpha is None else self.scale * added)


@torch.no_grad()
def put(addition: Addition, layer: LoRALinear) -> None:
    """Let a layer add what ``addition`` does, whatever its rank, if that is as large, and its alpha.

    Further rows of ``lora_A`` stay as they are, with no weight in ``lora_B``.
    """
    ratio = addition.scale / layer.scale
    layer.lora_A.weight[: addition.rank] = addition.down
    layer.lora_B.weight.zero_()
    layer.lora_B.weight[:, : addition.rank] = addition.up if ratio == 1 else ratio * addition.up.float()


def _nothing(module: nn.Module, inputs: object) -> None:
    pass


def add_lora(model: nn.Module, layers: Sequence[str], rank: int, alpha: float | None = None) -> int:
    """Freeze a model and add LoRA to linear layers in it; return the number of these layers.

    Layers that are frozen already are skipped: they have no effect on the output, or are pretrained modules.

    Args:
        model: The model.
        layers: Patterns of layer names, in which ``*`` matches anything.
        rank: Rank of the added products.
        alpha: See ``LoRALinear``.

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
        setattr(model.get_submodule(owner), own_name, LoRALinear(linear, rank, alpha))
    return len(chosen)


@torch.no_grad()
def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with LoRA merged into the layers: ``weight + alpha / rank lora_B lora_A``."""
    result = {name: tensor for name, tensor in weights.items() if not is_added(name)}
    for layer, addition in additions(weights).items():
        own = weights[f"{layer}.weight"]
        added = addition.scale * (addition.up.float() @ addition.down.float())
        result[f"{layer}.weight"] = (own.float() + added).to(own.dtype)
    return result


def additions(weights: Mapping[str, Tensor]) -> dict[str, Addition]:
    """Return what LoRA adds to each layer, by the layer's name."""
    layers = [name.removesuffix(f".{_DOWN}") for name in weights if name.endswith(f".{_DOWN}")]
    found: dict[str, Addition] = {}
    for layer in layers:
        down, alpha = weights[f"{layer}.{_DOWN}"], weights.get(f"{layer}.{_ALPHA}")
        found[layer] = Addition(down, weights[f"{layer}.{_UP}"], len(down) if alpha is None else float(alpha))
    return found


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
    return next((name.rpartition(".lora_")[0] for name in outside), None)


def added_to(weight: str) -> tuple[str, ...]:
    """Return the names of what LoRA may have added to a layer, by the name of the layer's weight."""
    layer = weight.removesuffix(".weight")
    return tuple(f"{layer}.{part}" for part in (_DOWN, _UP, _ALPHA))


def is_added(name: str) -> bool:
    """Return whether a weight was added by LoRA."""
    return name.endswith((_DOWN, _UP)) or is_alpha(name)


def is_alpha(name: str) -> bool:
    """Return whether a weight is the alpha of LoRA."""
    return name.endswith(f".{_ALPHA}")
