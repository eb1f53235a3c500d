"""The memory that a training process uses, by kind."""

import resource
import sys
from collections.abc import Iterable

import lightning
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from vdm.training.module import DiffusionModule


def memory_use(module: DiffusionModule, trainer: lightning.Trainer) -> dict[str, int]:
    """Return the bytes of this process: weights, optimizer and EMAs, and the peak of all.

    On a GPU ``peak`` and ``reserved`` are the device's, as PyTorch's allocator counts them; ``peak`` includes gradients
    and activations. Elsewhere ``peak`` is the process's, PyTorch itself included.
    """
    found = {
        "weights": _bytes(module.parameters()) + _bytes(module.buffers()),
        "optimizer": sum(_bytes(_tensors(optimizer.state)) for optimizer in trainer.optimizers),
        "ema": sum(_bytes(weights.values()) for weights in module.ema.weights.values()),
        "peak": peak_bytes(module.device)[0],
    }
    if module.device.type == "cuda":
        found["reserved"] = torch.cuda.memory_reserved(module.device)
    return found


def peak_bytes(device: torch.device) -> tuple[int, str]:
    """Return this process's peak memory, and whose memory it is, in words."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "of the device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of the machine, PyTorch itself included"


def _tensors(state: dict[Tensor, dict[str, object]]) -> list[Tensor]:
    return [value for of_weight in state.values() for value in of_weight.values() if isinstance(value, Tensor)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes that tensors take here, each storage once."""
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum({(t.data_ptr(), t.numel()): t.numel() * t.element_size() for t in local}.values())
