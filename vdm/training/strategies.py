"""Where training runs: strategies with typed arguments, for conf/strategy."""

from datetime import timedelta
from typing import Literal

from lightning.pytorch.strategies import DDPStrategy, Strategy


def auto() -> str:
    """Let Lightning choose: one process on one device, data parallel on several."""
    return "auto"


def ddp(process_group_backend: Literal["nccl", "gloo"] | None = None, timeout_seconds: float = 1800) -> Strategy:
    """Return data-parallel training: each process holds the whole model and averages gradients.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: After how long a process that waits for others gives up.
    """
    if timeout_seconds <= 0:
        raise ValueError(f"timeout_seconds must be > 0, but is {timeout_seconds}")
    return DDPStrategy(
        process_group_backend=process_group_backend,
        timeout=timedelta(seconds=timeout_seconds),
        gradient_as_bucket_view=True,
    )
