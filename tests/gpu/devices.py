"""Overrides of a run's configuration that put it on a device."""

import pytest
import torch


def on(device: str, number: int = 1) -> tuple[str, ...]:
    """Train on so many devices of a kind."""
    return (f"trainer.accelerator={device}", f"trainer.devices={number}")


def backend(device: str) -> str:
    """Have processes talk as they do on such devices by themselves: over NCCL on GPUs."""
    return f"strategy.process_group_backend={'gloo' if device == 'cpu' else 'nccl'}"


def number_of_devices(device: str, wanted: str) -> int:
    """Return how many devices ``one`` or ``all`` are; skips the test if all are one."""
    if wanted == "one":
        return 1
    number = 2 if device == "cpu" else torch.cuda.device_count()
    if number < 2:
        pytest.skip("one GPU: no others to talk to")
    return number
