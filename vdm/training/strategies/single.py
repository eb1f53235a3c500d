"""One process on one device."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from vdm.training.strategies.slicewise import SlicewiseStrategy


class SingleDevice(SlicewiseStrategy, SingleDeviceStrategy):
    """One process with the whole model on one device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device=device)
