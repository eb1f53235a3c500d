"""diffusers' own U-Net, small and with random weights, beside ours with the same weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNetSpatioTemporalConditionModel
from einops import rearrange
from torch import Tensor

from vdm.models.svd.unet import ADDED_TIME_IDS, SVDUNet
from vdm.randomness import generator, normal
from vdm.types import Conditioning


@dataclass(frozen=True)
class Sizes:
    """What tells one small network from another."""

    channels: tuple[int, ...] = (32, 64)
    num_heads: tuple[int, ...] = (2, 4)
    num_blocks: int = 1
    attention_levels: tuple[int, ...] = (0,)
    transformer_layers: int = 1
    context_channels: int = 16
    time_id_channels: int = 8


def diffusers_unet(sizes: Sizes) -> UNetSpatioTemporalConditionModel:
    """Return diffusers' network with random weights, blends included."""
    torch.manual_seed(0)
    attends = [level in sizes.attention_levels for level in range(len(sizes.channels))]
    network = UNetSpatioTemporalConditionModel(
        sample_size=8,
        down_block_types=tuple(f"{'CrossAttn' if a else ''}DownBlockSpatioTemporal" for a in attends),
        up_block_types=tuple(f"{'CrossAttn' if a else ''}UpBlockSpatioTemporal" for a in reversed(attends)),
        block_out_channels=sizes.channels,
        addition_time_embed_dim=sizes.time_id_channels,
        projection_class_embeddings_input_dim=3 * sizes.time_id_channels,
        layers_per_block=sizes.num_blocks,
        cross_attention_dim=sizes.context_channels,
        transformer_layers_per_block=sizes.transformer_layers,
        num_attention_heads=sizes.num_heads,
        num_frames=4,
    )
    random = generator(0, "blends", 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("mix_factor"):
                parameter.copy_(torch.randn(1, generator=random))
            elif "norm" in name:  # ones and zeros would hide a mix-up
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return network.eval()


def our_unet(sizes: Sizes, **options: object) -> SVDUNet:
    """Return our network of the same sizes."""
    return SVDUNet(**{**vars(sizes), **options}).eval()


@dataclass(frozen=True)
class Inputs:
    """What both networks are given, in our layout."""

    xt: Tensor
    c_noise: Tensor
    token: Tensor
    image: Tensor
    ids: Tensor

    @staticmethod
    def random(
        batch_size: int, num_frames: int, size: Sequence[int] = (8, 12), channels: int = 16, tokens: int = 1
    ) -> "Inputs":
        """Return random inputs; fps, motion buckets, augmentation and noise levels differ from clip to clip."""
        clips = range(batch_size)
        ids = torch.tensor([[6.0, 127.0, 0.02], [23.0, 10.0, 0.3], [0.0, 255.0, 1.0]])
        return Inputs(
            xt=normal(0, "xt", clips, (4, num_frames, *size)),
            c_noise=torch.tensor([0.3, -1.2, 1.6])[:batch_size],
            token=normal(0, "token", clips, (tokens, channels)),
            image=normal(0, "image", clips, (4, num_frames, *size)),
            ids=ids[:batch_size],
        )

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Return the latents and the token in another precision."""
        return Inputs(self.xt.to(dtype), self.c_noise, self.token.to(dtype), self.image.to(dtype), self.ids)

    def of_ours(self, network: SVDUNet, num_images: int = 0, **extra: Tensor) -> Tensor:
        """Return what our network makes of them."""
        condition = Conditioning(text=self.token, image=self.image, extra={ADDED_TIME_IDS: self.ids, **extra})
        return network(self.xt, self.c_noise, condition, num_images)

    def of_diffusers(self, network: UNetSpatioTemporalConditionModel) -> Tensor:
        """Return what diffusers' network makes of them."""
        sample = rearrange([self.xt, self.image], "n b c t h w -> b t (n c) h w")
        return rearrange(network(sample, self.c_noise, self.token, self.ids).sample, "b t c h w -> b c t h w")
