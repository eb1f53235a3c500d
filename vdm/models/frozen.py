"""Pretrained modules that are used as they are."""

from typing import Any, Self

from torch import Tensor, nn


class Frozen(nn.Module):
    """A part of the model around a pretrained module, which is not trained.

    The pretrained weights stay where they came from: they are neither saved with a checkpoint nor asked for when one is
    loaded.

    Args:
        frozen: The pretrained module.
    """

    def __init__(self, frozen: nn.Module) -> None:
        super().__init__()
        # An nn.Module's attribute would be Tensor or Module to type checkers; the libraries' classes have more.
        self.frozen: Any = frozen.requires_grad_(False).eval()
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


def _drop_frozen(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}frozen.")]:
        del state[name]


def _forgive_frozen(module: nn.Module, keys: Any) -> None:
    frozen = module.get_submodule("frozen")
    own = {f"frozen.{name}" for name, _ in frozen.named_parameters(remove_duplicate=False)}
    own |= {f"frozen.{name}" for name, _ in frozen.named_buffers(remove_duplicate=False)}
    missing = keys.missing_keys
    missing[:] = [name for name in missing if f"frozen.{name.rpartition('frozen.')[2]}" not in own]
