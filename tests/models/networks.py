"""Small networks that the tests of the networks share."""

import torch
from torch import Tensor, nn

from vdm.models.space_time_unet import SpaceTimeUNet
from vdm.randomness import generator, normal


def randomized(module: nn.Module) -> nn.Module:
    """Give every weight a random value: layers that begin at zero would hide what they do."""
    random = generator(0, "weights", 0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=random) / fan_in**0.5)
    return module.eval()


def small_unet(**options: object) -> nn.Module:
    """Return a U-Net of two levels with attention at the second and random weights."""
    defaults = {"channels": [16, 32], "num_blocks": 1, "attention_levels": [1], "temporal_levels": [0, 1]}
    return randomized(SpaceTimeUNet(**{**defaults, "head_channels": 8, **options}))


def random_input(purpose: str, *shape: int) -> Tensor:
    """Return a standard normal tensor, another for each purpose."""
    return normal(0, purpose, range(shape[0]), shape[1:])
