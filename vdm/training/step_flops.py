"""Floating-point operations of a training step, and the rate that the device reaches at most."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vdm.models.lean_function import gradients_of_products
from vdm.training.planning.step import flop_counter
from vdm.types import ClipBatch

PRODUCT_SIZE = {"cpu": 1024, "cuda": 8192, "mps": 2048}
"""Rows and columns of the matrices whose product is timed."""
NUM_PRODUCTS = 2


class StepFlops:
    """Counts the operations of the micro-batches that this process trains on.

    They are counted in the first forward pass of each shape, together with what its backward pass will take. Of a model
    with compiled blocks nothing is counted: it would run uncompiled from then on.

    Args:
        model: What is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._by_shape: dict[object, float] = {}
        self._total = 0.0

    @property
    def total(self) -> float | None:
        """Operations so far, of forward and backward passes; None for a compiled model.

        What is recomputed does not count, as in model FLOPs utilization (Chowdhery et al. 2022, appendix B).
        """
        return None if self._is_compiled else self._total

    @property
    def _is_compiled(self) -> bool:
        return any(module._compiled_call_impl is not None for module in self._model.modules())

    @contextmanager
    def counting(self, batch: ClipBatch) -> Iterator[None]:
        """Count the forward pass of a micro-batch."""
        shape = tuple(None if tensor is None else tuple(tensor.shape) for tensor in _tensors(batch))
        if shape in self._by_shape or self._is_compiled:
            yield
        else:
            with _CountingMode() as counted:
                yield
            self._by_shape[shape] = counted.flops
        self._total += self._by_shape.get(shape, 0.0)


class _CountingMode(TorchDispatchMode):
    """Adds up the operations of products in a forward pass and in the backward pass that follows.

    The gradient of each factor of a product takes as many operations as the product; of attention, which has two
    products and computes one again, two and a half times as many for all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self._formulas = flop_counter().flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            forward = formula(*args, **(kwargs or {}), out_val=found)
            # A vector, such as a bias, is no factor.
            factors = [arg for arg in args if isinstance(arg, Tensor) and arg.dim() > 1]
            num_gradients = gradients_of_products()
            if num_gradients is None:
                num_gradients = sum(factor.requires_grad for factor in factors) if torch.is_grad_enabled() else 0
            is_attention = "attention" in str(func)
            self.flops += forward * (1 + (min(num_gradients, 1) * 2.5 if is_attention else num_gradients))
        return found


def _tensors(batch: ClipBatch) -> tuple[Tensor | None, ...]:
    return batch.video, batch.latents, None if batch.images is None else batch.images.pixels


@torch.no_grad()
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of a large matrix product on a device, in operations a second."""
    size = PRODUCT_SIZE[device.type]
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(NUM_PRODUCTS + 1):  # the first one warms up
        start = time.perf_counter()
        torch.mm(left, right)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
