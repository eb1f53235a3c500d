from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.models.networks import randomized
from tests.models.svd.peers import Inputs, Sizes, our_unet
from vdm.models.space_time_unet import SpaceTimeBlock, SpaceTimeUNet
from vdm.training.block_options import BlockOptions, blocks_of


class Stack(nn.Module):
    """A network with a block on each of three levels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4)) for _ in range(3))

    def blocks_by_level(self) -> Sequence[tuple[int, nn.Module]]:
        return list(enumerate(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def kept_and_gradients(options: BlockOptions) -> tuple[int, list[Tensor]]:
    """Return how many elements are kept for the backward pass, and what it gives."""
    torch.manual_seed(0)
    network, kept = Stack(), 0
    names = [name for name, _ in network.named_parameters()]
    options.apply(network)
    assert [name for name, _ in network.named_parameters()] == names

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(torch.randn(8, 4)).square().mean()
    loss.backward()
    return kept, [p.grad for p in network.parameters() if p.grad is not None]


def test_recomputed_blocks_keep_less_and_give_the_same_gradient() -> None:
    plain, expected = kept_and_gradients(BlockOptions())
    some, _ = kept_and_gradients(BlockOptions(recompute=[1]))
    everything, found = kept_and_gradients(BlockOptions(recompute="all"))
    assert everything < some < plain
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=0)


def test_blocks_of_the_u_net_are_all_its_blocks_with_their_levels() -> None:
    network = randomized(SpaceTimeUNet([16, 16, 16], num_blocks=1, attention_levels=[2], head_channels=8))
    blocks = blocks_of(nn.Sequential(network))
    assert [level for level, _ in blocks] == [0, 1, 2, 2, 2, 2, 1, 1, 0, 0]
    assert {id(block) for _, block in blocks} == {id(m) for m in network.modules() if isinstance(m, SpaceTimeBlock)}


def test_network_that_names_no_blocks_is_refused() -> None:
    BlockOptions().apply(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Linear names no blocks: it has no method blocks_by_level"):
        BlockOptions(compile=True).apply(nn.Linear(2, 2))


def test_blocks_of_stable_video_diffusion_are_recomputed_with_the_same_gradient() -> None:
    inputs, gradients = Inputs.random(2, 3), []
    for recompute in ("none", "all"):
        torch.manual_seed(0)
        network = our_unet(Sizes())
        assert [level for level, _ in blocks_of(network)] == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
        BlockOptions(recompute=recompute).apply(network)
        inputs.of_ours(network).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for found, expected in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
