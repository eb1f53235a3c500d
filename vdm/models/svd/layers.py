"""Layers that Stable Video Diffusion's U-Net alone has, on activations laid out as ``b t h w c``.

Their parameters have the names and shapes of diffusers' ``UNetSpatioTemporalConditionModel``, so that published weights
load without conversion. Outputs equal those of diffusers up to rounding. Layers that ModelScope's U-Net has too are in
``vdm.models.diffusers_layers``.
"""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vdm.models.attention import Activations
from vdm.models.blocks import ClipNorm, FrameNorm, TemporalConv
from vdm.models.diffusers_layers import (
    Attention,
    BlockConditioning,
    SpatialBlock,
    SpatialResidual,
    add_cross_attention,
)
from vdm.models.embeddings import EmbeddingMLP, sinusoids
from vdm.models.feed_forward import FeedForward, add_feed_forward
from vdm.models.normalized_conv import convolve_normalized


class TimeMixer(nn.Module):
    """Learned blend of the outputs of a spatial and of a temporal layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([0.5]))

    def temporal_share(
        self, is_image: Bool[Tensor, "b t"] | None, dtype: torch.dtype
    ) -> Float[Tensor, " 1"] | Float[Tensor, "b t 1 1 1"]:
        """Return the weight of the temporal output: one for all frames, or one a frame, which is 0 for images."""
        share = torch.sigmoid(-self.mix_factor).to(dtype)
        return share if is_image is None else torch.where(rearrange(is_image, "b t -> b t 1 1 1"), 0, share)


class TemporalResidual(nn.Module):
    """Residual branch of two convolutions over time; the embedding is added between them."""

    def __init__(self, channels: int, embedding_channels: int, eps: float) -> None:
        super().__init__()
        self.norm1 = ClipNorm(channels, eps)
        self.conv1 = TemporalConv(channels)
        self.time_emb_proj = nn.Linear(embedding_channels, channels)
        self.norm2 = ClipNorm(channels, eps)
        self.conv2 = TemporalConv(channels)

    def forward(self, x: Activations, embedding: Float[Tensor, "b *frames d"]) -> Activations:
        """Return the output of the branch, without ``x``."""
        h = convolve_normalized(x, self.norm1, self.conv1, shift=self.time_emb_proj(embedding))
        return convolve_normalized(h, self.norm2, self.conv2)


class SpatioTemporalResidual(nn.Module):
    """A spatial residual block, then a temporal one, whose output is blended in.

    Args:
        in_channels: Width of the input, a multiple of 32.
        out_channels: Width of the output, a multiple of 32.
        embedding_channels: Width of the embedding.
        eps: Added to the variance in each normalization.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, eps: float) -> None:
        super().__init__()
        self.spatial_res_block = SpatialResidual(in_channels, out_channels, embedding_channels, eps)
        self.temporal_res_block = TemporalResidual(out_channels, embedding_channels, eps)
        self.time_mixer = TimeMixer()

    def forward(self, x: Activations, conditioning: BlockConditioning) -> Float[Tensor, "b t h w c2"]:
        """Apply the block."""
        x = self.spatial_res_block(x, conditioning)
        clip, images = conditioning.split(x)
        if clip.shape[1] == 0:
            return x
        # The blend a x + (1 - a) (x + branch) is x + (1 - a) branch.
        share = self.time_mixer.temporal_share(conditioning.is_image, x.dtype)
        embedding = conditioning.embedding
        if embedding.ndim == 3:
            embedding = embedding[:, : clip.shape[1]]
        mixed = torch.addcmul(clip, share, self.temporal_res_block(clip, embedding))
        return mixed if conditioning.num_images == 0 else torch.cat([mixed, images], dim=1)


class TemporalBlock(nn.Module):
    """A feed-forward network, attention across frames, cross-attention to tokens, and another feed-forward network.

    Args:
        channels: Width.
        num_heads: Number of attention heads.
        context_channels: Width of the tokens.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(channels)
        self.ff_in = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, num_heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Activations, context: Float[Tensor, "b l e"]) -> Activations:
        """Apply the block."""
        x = add_feed_forward(x, self.norm_in, self.ff_in)
        x = x + self.attn1.over_time(self.norm1(x))
        x = add_cross_attention(x, self.norm2, self.attn2, context)
        return add_feed_forward(x, self.norm3, self.ff)


class SpatioTemporalTransformer(nn.Module):
    """Alternating spatial and temporal transformer blocks; the outputs of each pair are blended.

    Args:
        channels: Width, a multiple of 32.
        num_heads: Number of attention heads; divides ``channels``.
        context_channels: Width of the tokens.
        num_layers: Number of pairs of a spatial and a temporal block.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int, num_layers: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = FrameNorm(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            SpatialBlock(channels, num_heads, context_channels) for _ in range(num_layers)
        )
        self.temporal_transformer_blocks = nn.ModuleList(
            TemporalBlock(channels, num_heads, context_channels) for _ in range(num_layers)
        )
        self.time_pos_embed = EmbeddingMLP(channels, 4 * channels, channels)
        self.time_mixer = TimeMixer()
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Activations, conditioning: BlockConditioning) -> Activations:
        """Apply the transformer."""
        num_frames = x.shape[1] - conditioning.num_images
        places = torch.arange(num_frames, device=x.device).float()
        frames = rearrange(self.time_pos_embed(sinusoids(places, self.channels)), "t c -> t 1 1 c")

        h = self.proj_in(self.norm(x))
        for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            h = spatial(h, conditioning.context)
            clip, images = conditioning.split(h)
            if num_frames == 0:
                continue
            share = self.time_mixer.temporal_share(conditioning.is_image, h.dtype)
            mixed = torch.lerp(clip, temporal(clip + frames, conditioning.clip_context), share)
            h = mixed if conditioning.num_images == 0 else torch.cat([mixed, images], dim=1)
        return x + self.proj_out(h)


def freeze_unused_by_one_token(module: nn.Module) -> None:
    """Freeze the weights that have no effect if there is a single token: queries, keys and the norm before them.

    Their gradients are exactly zero. If they were trained, weight decay would still change them, and distributed
    training would wait for gradients that never come.
    """
    for block in module.modules():
        if isinstance(block, SpatialBlock | TemporalBlock):
            for unused in (block.norm2, block.attn2.to_q, block.attn2.to_k):
                cast(nn.Module, unused).requires_grad_(False)
