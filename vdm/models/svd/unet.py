"""The spatio-temporal U-Net of Stable Video Diffusion (Blattmann et al. 2023)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Interval
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.blocks import FrameNorm, SpatialConv
from vdm.models.diffusers_layers import BlockConditioning
from vdm.models.embeddings import EmbeddingMLP, sinusoids
from vdm.models.normalized_conv import convolve_normalized
from vdm.models.svd.layers import SpatioTemporalResidual, SpatioTemporalTransformer, freeze_unused_by_one_token
from vdm.models.unet_stages import Stage, blocks_with_levels, check_levels, down_stages, run_stages, up_stages
from vdm.ranges import Levels, NumLayers, Width, WidthOfLevels
from vdm.types import Conditioning

ADDED_TIME_IDS = "added_time_ids"
"""Name in ``Conditioning.extra`` of a clip's numbers: frames per second minus one, motion bucket, noise level."""
IMAGE_ONLY_INDICATOR = "image_only_indicator"
"""Name in ``Conditioning.extra`` of a mask ``b t``, True for frames that are images, without neighbours in time."""


class SVDUNet(nn.Module):
    """U-Net conditioned on an image: its latents are concatenated to every frame, and blocks attend to its embedding.

    Parameters have the names and shapes of diffusers' ``UNetSpatioTemporalConditionModel``, and outputs are the same.
    The defaults are those of the published img2vid and img2vid-xt (1,524,623,082 parameters).

    Args:
        channels: Width of each level, from the full resolution down; multiples of 32.
        in_channels: Channels of the latents, and of the image's latents.
        num_heads: Attention heads of each level; divides the level's width.
        num_blocks: Residual blocks a level on the way down; one more on the way up.
        attention_levels: Levels (0 is the full resolution) with transformers.
        transformer_layers: Pairs of a spatial and a temporal block in each transformer.
        context_channels: Width of the image's embedding.
        time_id_channels: Number of sinusoids of each number that a clip is conditioned on.
        num_time_ids: Number of these numbers.
        one_token: Whether the context is a single token. Weights that are then without effect (queries, keys, the norm
            before them) are frozen.
    """

    def __init__(
        self,
        channels: WidthOfLevels = (320, 640, 1280, 1280),
        in_channels: Width = 4,
        num_heads: WidthOfLevels = (5, 10, 20, 20),
        num_blocks: NumLayers = 2,
        attention_levels: Levels = (0, 1, 2),
        transformer_layers: NumLayers = 1,
        context_channels: Width = 1024,
        time_id_channels: Width = 256,
        num_time_ids: Annotated[int, Interval(ge=1, le=64)] = 3,
        one_token: bool = True,
    ) -> None:
        super().__init__()
        check_levels(channels, attention_levels)
        _check_heads(channels, num_heads)
        counts = {"in_channels": in_channels, "num_blocks": num_blocks, "transformer_layers": transformer_layers}
        counts |= {"context_channels": context_channels, "num_time_ids": num_time_ids}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        if time_id_channels < 2 or time_id_channels % 2:
            raise ValueError(f"time_id_channels must be even, cosine and sine, but is {time_id_channels}")
        self.channels, self.in_channels, self.num_heads = tuple(channels), in_channels, tuple(num_heads)
        self.num_blocks, self.attention_levels = num_blocks, tuple(attention_levels)
        self.transformer_layers, self.context_channels = transformer_layers, context_channels
        self.time_id_channels, self.num_time_ids = time_id_channels, num_time_ids
        embedding = 4 * channels[0]

        self.conv_in = SpatialConv(2 * in_channels, channels[0])
        self.time_embedding = EmbeddingMLP(channels[0], embedding, embedding)
        self.add_embedding = EmbeddingMLP(num_time_ids * time_id_channels, embedding, embedding)

        # Values of eps with which the published weights were trained.
        self.down_blocks = down_stages(
            channels,
            num_blocks,
            lambda level, widths: self._stage(level, widths, eps=1e-6 if level in attention_levels else 1e-5),
        )
        self.mid_block = Stage(
            resnets=[SpatioTemporalResidual(channels[-1], channels[-1], embedding, eps=1e-5) for _ in range(2)],
            attentions=[SpatioTemporalTransformer(channels[-1], num_heads[-1], context_channels, transformer_layers)],
        )
        self.up_blocks = up_stages(channels, num_blocks, lambda level, widths: self._stage(level, widths, eps=1e-6))

        self.conv_norm_out = FrameNorm(channels[0])
        self.conv_out = SpatialConv(channels[0], in_channels)
        if one_token:
            freeze_unused_by_one_token(self)

    def forward(
        self,
        xt: Float[Tensor, "b c t h w"],
        c_noise: Float[Tensor, "b *frames"],
        condition: Conditioning,
        num_images: int = 0,
    ) -> Float[Tensor, "b c t h w"]:
        """Return the raw prediction.

        Args:
            xt: Noised latents, scaled by ``c_in``; of any height and width.
            c_noise: A quarter of the logarithm of the noise level of each clip, or of each frame.
            condition: ``text`` holds the image's embedding as a token, ``image`` its latents for every frame (None for
                zeros), ``extra`` the numbers ``added_time_ids`` (b, num_time_ids), and optionally
                ``image_only_indicator`` (b, t), which marks frames that temporal layers leave unchanged.
            num_images: How many of the last frames are independent images, which temporal layers don't see at all.

        Raises:
            ValueError: If ``added_time_ids`` are missing or have another shape.
        """
        conditioning = self._conditioning(c_noise, condition, xt.shape[2] - num_images, num_images)
        x = self.conv_in(self._with_image(xt, condition).to(self.conv_in.weight.dtype))
        x = run_stages(x, conditioning, self.down_blocks, self.mid_block, self.up_blocks)
        return rearrange(convolve_normalized(x, self.conv_norm_out, self.conv_out), "b t h w c -> b c t h w")

    def blocks_by_level(self) -> list[tuple[int, nn.Module]]:
        """Return each residual block and each transformer with its level, in the order in which they run."""
        return blocks_with_levels(self.down_blocks, self.mid_block, self.up_blocks)

    def _stage(self, level: int, inputs: Sequence[int], eps: float) -> Stage:
        width, num_transformers = self.channels[level], len(inputs) if level in self.attention_levels else 0
        heads, context, layers = self.num_heads[level], self.context_channels, self.transformer_layers
        return Stage(
            resnets=[SpatioTemporalResidual(entrance, width, 4 * self.channels[0], eps) for entrance in inputs],
            attentions=[SpatioTemporalTransformer(width, heads, context, layers) for _ in range(num_transformers)],
        )

    def _conditioning(
        self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning, num_clip_frames: int, num_images: int
    ) -> BlockConditioning:
        dtype = self.conv_in.weight.dtype
        context, is_image = condition.text, condition.extra.get(IMAGE_ONLY_INDICATOR)
        if context is None:
            context = torch.zeros(len(c_noise), 1, self.context_channels, device=c_noise.device)
        if context.shape[-1] != self.context_channels:
            raise ValueError(f"context_channels={self.context_channels}: tokens are {context.shape[-1]} wide")
        is_image = None if is_image is None else is_image[:, :num_clip_frames].bool()
        return BlockConditioning(
            self._embedding(c_noise, condition), context.to(dtype), is_image=is_image, num_images=num_images
        )

    def _embedding(self, c_noise: Float[Tensor, "b *frames"], condition: Conditioning) -> Float[Tensor, "b *frames d"]:
        ids = condition.extra.get(ADDED_TIME_IDS)
        if ids is None or ids.shape != (len(c_noise), self.num_time_ids):
            found = "missing" if ids is None else f"of shape {list(ids.shape)}"
            raise ValueError(
                f"{ADDED_TIME_IDS} must be of shape [{len(c_noise)}, {self.num_time_ids}], but are {found}"
            )
        numbers = rearrange(sinusoids(ids.flatten(), self.time_id_channels), "(b n) d -> b (n d)", b=len(c_noise))
        added = self.add_embedding(numbers)
        if c_noise.ndim == 2:
            added = repeat(added, "b d -> (b t) d", t=c_noise.shape[1])
        embedding = F.silu(self.time_embedding(sinusoids(c_noise.flatten(), self.channels[0])) + added)
        return embedding.unflatten(0, c_noise.shape)

    @staticmethod
    def _with_image(xt: Float[Tensor, "b c t h w"], condition: Conditioning) -> Float[Tensor, "b t h w 2*c"]:
        image = torch.zeros_like(xt) if condition.image is None else condition.image.to(xt.dtype)
        return rearrange([xt, image], "n b c t h w -> b t h w (n c)").contiguous()


def _check_heads(channels: Sequence[int], num_heads: Sequence[int]) -> None:
    if len(num_heads) != len(channels):
        raise ValueError(f"num_heads must be one number a level ({len(channels)}), but is {list(num_heads)}")
    for width, heads in zip(channels, num_heads, strict=True):
        if heads < 1 or width % heads:
            raise ValueError(f"num_heads must divide each width, but {heads} does not divide {width}")
