"""diffusers' own text-to-video U-Net, small and with random weights, beside ours with the same weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet3DConditionModel
from torch import Tensor

from vdm.models.modelscope.unet import ModelScopeUNet
from vdm.randomness import generator, normal
from vdm.types import Conditioning


@dataclass(frozen=True)
class Sizes:
    """What tells one small network from another."""

    channels: tuple[int, ...] = (32, 64)
    num_blocks: int = 1
    attention_levels: tuple[int, ...] = (0,)
    head_channels: int = 16
    text_channels: int = 24


def diffusers_unet(sizes: Sizes) -> UNet3DConditionModel:
    """Return diffusers' network with random weights; what begins as zeros or ones would hide a mix-up."""
    torch.manual_seed(0)
    attends = [level in sizes.attention_levels for level in range(len(sizes.channels))]
    network = UNet3DConditionModel(
        sample_size=8,
        down_block_types=tuple(f"{'CrossAttn' if a else ''}DownBlock3D" for a in attends),
        up_block_types=tuple(f"{'CrossAttn' if a else ''}UpBlock3D" for a in reversed(attends)),
        block_out_channels=sizes.channels,
        layers_per_block=sizes.num_blocks,
        cross_attention_dim=sizes.text_channels,
        attention_head_dim=sizes.head_channels,
    )
    random = generator(0, "weights", 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=random))
    return network.eval()


def our_unet(sizes: Sizes, **options: object) -> ModelScopeUNet:
    """Return our network of the same sizes."""
    return ModelScopeUNet(**{**vars(sizes), **options}).eval()


@dataclass(frozen=True)
class Inputs:
    """What both networks are given."""

    xt: Tensor
    timesteps: Tensor
    tokens: Tensor

    @staticmethod
    def random(
        batch_size: int, num_frames: int, size: Sequence[int] = (8, 12), channels: int = 24, num_tokens: int = 7
    ) -> "Inputs":
        """Return random inputs; noise levels and texts differ from clip to clip."""
        clips = range(batch_size)
        return Inputs(
            xt=normal(0, "xt", clips, (4, num_frames, *size)),
            timesteps=torch.tensor([501.0, 0.0, 999.0])[:batch_size],
            tokens=normal(0, "tokens", clips, (num_tokens, channels)),
        )

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Return latents and tokens in another precision."""
        return Inputs(self.xt.to(dtype), self.timesteps, self.tokens.to(dtype))

    def of_ours(self, network: ModelScopeUNet, num_images: int = 0) -> Tensor:
        """Return what our network makes of them."""
        return network(self.xt, self.timesteps, Conditioning(text=self.tokens), num_images)

    def of_diffusers(self, network: UNet3DConditionModel) -> Tensor:
        """Return what diffusers' network makes of them."""
        return network(self.xt, self.timesteps, self.tokens).sample
