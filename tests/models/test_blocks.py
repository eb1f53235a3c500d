import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.networks import random_input, randomized
from vdm.models.blocks import ClipNorm, FrameNorm, SpatialConv, Upsample
from vdm.models.residual_block import ResidualBlock


@pytest.mark.parametrize("stride", [1, 2])
def test_spatial_convolution_equals_a_3d_convolution_with_a_kernel_of_one_frame(stride: int) -> None:
    conv = SpatialConv(5, 7, stride)
    peer = nn.Conv3d(5, 7, (1, 3, 3), (1, stride, stride), (0, 1, 1))
    with torch.no_grad():
        peer.weight.copy_(conv.weight[:, :, None])
        peer.bias.copy_(conv.bias)
    x = random_input("x", 2, 3, 8, 6, 5)

    torch.testing.assert_close(conv(x), peer(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1))


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 16), (10, 2), (7, 1)])
def test_frame_norm_equals_group_norm_of_each_frame(channels: int, groups: int) -> None:
    norm = randomized(FrameNorm(channels))
    x = random_input("x", 2, 3, 4, 5, channels)

    for frame in range(3):
        expected = F.group_norm(x[:, frame].permute(0, 3, 1, 2), groups, norm.weight, norm.bias)
        torch.testing.assert_close(norm(x)[:, frame], expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("norm", [FrameNorm(64), ClipNorm(64, 1e-5)], ids=["frame", "clip"])
def test_weights_of_a_normalization_train_behind_frozen_layers(norm: nn.Module) -> None:
    x = random_input("x", 2, 3, 4, 5, 64)

    def gradients(given: torch.Tensor) -> list[torch.Tensor | None]:
        norm.zero_grad()
        norm(given).square().sum().backward()  # not autograd.grad for weights alone, with which PyTorch crashes
        return [weight.grad for weight in norm.parameters()]

    torch.testing.assert_close(gradients(x), gradients(x.clone().requires_grad_()))


def test_upsampling_repeats_pixels_before_its_convolution() -> None:
    upsample = Upsample(4, 6)
    x = random_input("x", 2, 3, 4, 5, 4)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    torch.testing.assert_close(upsample(x), upsample.conv(doubled))


def test_activations_stay_channels_last_in_memory() -> None:
    block, x = randomized(ResidualBlock(8, 16, 12, dropout=0.0)), random_input("x", 2, 3, 4, 6, 8)

    assert block(x, random_input("embedding", 2, 1, 12)).is_contiguous()


def test_residual_block_begins_as_its_skip_connection() -> None:
    x, embedding = random_input("x", 2, 3, 4, 5, 8), random_input("embedding", 2, 1, 12)
    same, wider = ResidualBlock(8, 8, 12, dropout=0.0), ResidualBlock(8, 16, 12, dropout=0.0)

    torch.testing.assert_close(same(x, embedding), x)
    torch.testing.assert_close(wider(x, embedding), wider.skip(x))


def test_embedding_of_the_clip_is_that_of_each_of_its_frames() -> None:
    block = randomized(ResidualBlock(8, 16, 12, dropout=0.0))
    x, embedding = random_input("x", 2, 3, 4, 5, 8), random_input("embedding", 2, 1, 12)

    torch.testing.assert_close(block(x, embedding), block(x, embedding.expand(-1, 3, -1)))
