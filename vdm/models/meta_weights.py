"""Networks whose weights have no memory, on PyTorch's meta device, until they are read from files."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook


def make_on_meta(make: Callable[[], nn.Module]) -> nn.Module | None:
    """Make a network whose weights are on the meta device; its buffers, which constructors compute, are real.

    A weight has memory only until its layer takes it over, and its initial values are not computed.

    Args:
        make: Makes the network.

    Returns:
        The network; None if files would not give it all of its weights, or if its constructor uses their values.
    """
    # PyTorch documents that the hook may return another weight; its annotation says that it returns nothing.
    handle = register_module_parameter_registration_hook(_to_meta)  # pyright: ignore[reportArgumentType]
    try:
        network = make()
    except RuntimeError:  # PyTorch's, where values are missing
        return None
    finally:
        handle.remove()
    saved = network.state_dict()
    is_saved = all(name in saved for name, _ in network.named_parameters())
    return network if is_saved and not any(buffer.is_meta for buffer in network.buffers()) else None


def with_memory(weight: Tensor, device: torch.device) -> Tensor:
    """Return a tensor as a weight on the meta device describes it, of NaN: a weight that is never read shows at once.

    Other weights are returned as they are.
    """
    if not weight.is_meta:
        return weight
    return torch.empty_like(weight, device=device).fill_(torch.nan if weight.is_floating_point() else 0)


def materialize(module: nn.Module) -> None:
    """Give the weights of a module that are on the meta device memory on the CPU; tied weights remain tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in [*part.named_parameters(recurse=False, remove_duplicate=False)]:
            if not weight.is_meta:
                continue
            if weight not in made:
                made[weight] = nn.Parameter(with_memory(weight, torch.device("cpu")), weight.requires_grad)
            setattr(part, name, made[weight])


def _to_meta(module: nn.Module, name: str, weight: nn.Parameter) -> nn.Parameter | None:
    return None if weight.is_meta else nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
