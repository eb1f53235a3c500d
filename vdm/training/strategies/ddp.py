"""Data parallel: each process holds the whole model."""

from datetime import timedelta
from typing import Any, Literal

from lightning.pytorch.strategies import DDPStrategy

from vdm.training.strategies.base import PartwiseStrategy

Backend = Literal["nccl", "gloo"]


class DataParallel(PartwiseStrategy, DDPStrategy):
    """Each process holds the whole model and averages gradients with the others.

    Args:
        process_group_backend: ``nccl`` for GPUs, ``gloo`` for CPUs; none chooses by device.
        timeout_seconds: After how long a process that waits for others gives up.
    """

    def __init__(self, process_group_backend: Backend | None = None, timeout_seconds: float = 1800) -> None:
        super().__init__(**process_group_options(process_group_backend, timeout_seconds), gradient_as_bucket_view=True)


def process_group_options(backend: Backend | None, timeout_seconds: float) -> dict[str, Any]:
    """Return what Lightning is to be told of the group of processes."""
    if timeout_seconds <= 0:
        raise ValueError(f"timeout_seconds must be > 0, but is {timeout_seconds}")
    return {"process_group_backend": backend, "timeout": timedelta(seconds=timeout_seconds)}
