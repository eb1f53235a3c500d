"""Floating-point operations of a training step, and the rate that the device reaches at most."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vdm.training.planning.step import flop_counter

PRODUCT_SIZE = {"cpu": 1024, "cuda": 8192, "mps": 2048}
"""Rows and columns of the matrices whose product is timed."""
NUM_PRODUCTS = 2


class StepFlops:
    """The operations of the micro-batches that this process trains on.

    They are counted in the first forward pass of each shape, which runs uncompiled.

    Args:
        model: What is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
        # A backward pass takes the gradient of the activations, with as many operations as the forward pass, and that
        # of the trained weights, with as many again if all are trained.
        self._factor = 2 + sum(n for n, trained in weights if trained) / max(1, sum(n for n, _ in weights))
        self._by_shape: dict[tuple[int, ...], float] = {}
        self.total = 0.0
        """Operations so far, of forward and backward passes. What is computed again does not count, as in model FLOPs
        utilization (Chowdhery et al. 2022, appendix B)."""

    @contextmanager
    def counting(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Count the forward pass of a micro-batch of some shape."""
        if shape in self._by_shape:
            yield
        else:
            with flop_counter() as counter:
                yield
            self._by_shape[shape] = self._factor * counter.get_total_flops()
        self.total += self._by_shape[shape]


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
