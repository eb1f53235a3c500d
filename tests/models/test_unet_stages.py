"""The walk that the U-Nets of Stable Video Diffusion and ModelScope share."""

import pytest
import torch
from torch import nn

from vdm.models.modelscope.unet import ModelScopeUNet
from vdm.models.svd.unet import ADDED_TIME_IDS, SVDUNet
from vdm.types import Conditioning

CONDITION = Conditioning(
    text=torch.ones(1, 1, 16), image=torch.zeros(1, 4, 2, 8, 8), extra={ADDED_TIME_IDS: torch.ones(1, 3)}
)


@pytest.mark.parametrize(
    "network",
    [
        SVDUNet((32, 64), num_heads=(1, 2), attention_levels=(0,), context_channels=16, time_id_channels=8),
        ModelScopeUNet((32, 64), attention_levels=(0,), head_channels=16, text_channels=16),
    ],
    ids=lambda network: type(network).__name__,
)
def test_blocks_are_listed_in_the_order_in_which_they_run(network: SVDUNet | ModelScopeUNet) -> None:
    blocks, ran = network.blocks_by_level(), []
    heights = {0: 8, 1: 4}
    for level, block in blocks:

        def note(module: nn.Module, inputs: tuple, level: int = level) -> None:
            assert inputs[0].shape[2] == heights[level]
            ran.append(module)

        block.register_forward_pre_hook(note)
    network(torch.zeros(1, 4, 2, 8, 8), torch.ones(1), CONDITION)

    assert ran == [block for _, block in blocks]
