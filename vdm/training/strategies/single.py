"""One process on one device."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from vdm.training.strategies.slicewise import SlicewiseStrategy


class SingleDevice(SlicewiseStrategy, SingleDeviceStrategy):
    """One process that holds everything on one device.

    Args:
        device: The device; offered by the trainer's accelerator and devices.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device=device)
