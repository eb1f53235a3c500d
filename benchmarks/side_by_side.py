"""Measuring a network against another one of the same weights: in turns for time, in a process for each for memory."""

import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vdm.training.planning.step import flop_counter

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MATRIX_SIZE = 2048
PRODUCT_FLOPS = 2 * MATRIX_SIZE**3


class Run(ABC):
    """A network on one input."""

    network: nn.Module

    @abstractmethod
    def forward(self) -> Tensor:
        """Return the prediction."""

    def forward_alone(self) -> Tensor:
        """Return the prediction, keeping nothing for a backward pass."""
        with torch.no_grad():
            return self.forward()

    def step(self) -> None:
        """Run forward and backward."""
        self.network.zero_grad()
        self.forward().float().square().mean().backward()


def seconds(function: Callable[[], object]) -> float:
    """Return the time of one call; on one thread the processor's, to which other work on the machine adds little."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    function()
    return clock() - start


def best_in_turns(functions: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Call the functions in turns, and return the shortest time of each.

    The shortest, because whatever else runs on the machine only ever slows a round down.
    """
    rounds = [{name: seconds(function) for name, function in functions.items()} for _ in range(num_rounds)]
    return {name: min(times[name] for times in rounds) for name in functions}


def print_product_rates() -> None:
    """Print how fast the machine multiplies matrices: this alone decides what bfloat16 is worth."""
    print(f"threads {torch.get_num_threads()}")
    for precision, dtype in PRECISIONS.items():
        print(f"matrix product {precision}  {product_rate(dtype) / 1e9:.0f} GFLOP/s", flush=True)


def product_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s of a matrix product."""
    product = matrix_product(dtype)
    return PRODUCT_FLOPS / min(seconds(product) for _ in range(5))


def matrix_product(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a function that multiplies two matrices."""
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE, dtype=dtype)
    return lambda: matrix @ matrix


def flops(function: Callable[[], object]) -> int:
    """Return the operations of one call, by PyTorch's counter."""
    with flop_counter() as counter:
        function()
    return counter.get_total_flops()


def peak_in_own_process(script: str, *arguments: str) -> float:
    """Run a script, which ends by printing a number, as it does after ``resident_mib``; return the number."""
    # Blocks of 64 KB and more go back to the system when they are freed: what is resident is what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, script, "peak", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def resident_mib(field: str) -> float:
    """Return the memory of this process, now (``VmRSS``) or at its peak (``VmHWM``), which the system gives in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
