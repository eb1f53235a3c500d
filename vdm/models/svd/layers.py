"""Layers of Stable Video Diffusion's U-Net, on activations laid out as ``b t h w c``.

Their parameters have the names and shapes of diffusers' ``UNetSpatioTemporalConditionModel``, so that published weights
load as they are. What is computed is the same up to rounding; how is not: every layer is a view of one memory layout,
and what has a closed form (attention to one token, blends of a residual branch) is computed in that form.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations, attend
from vdm.models.blocks import ClipNorm, FrameNorm, SpatialConv, TemporalConv
from vdm.models.feed_forward import FeedForward, add_feed_forward
from vdm.models.normalized_conv import convolve_normalized

Tokens = Float[Tensor, "b l e"] | Float[Tensor, "b t l e"]
"""What is attended to: one sequence of tokens a clip, or one a frame."""

_MAX_PERIOD = 10_000.0


@dataclass(frozen=True)
class Guide:
    """What every block is told beside the activations."""

    embedding: Float[Tensor, "b *frames d"]
    """Of noise level and added numbers of each clip, or of each frame, after the activation that every block begins
    with."""
    context: Tokens
    is_image: Bool[Tensor, "b t"] | None = None
    """Frames of the clip that get no share of temporal layers; none for no such frames."""
    num_images: int = 0
    """How many of the last frames are independent images, which temporal layers must not see."""

    @property
    def clip_context(self) -> Float[Tensor, "b l e"]:
        """The tokens that hold for the whole clip: those of the first frame."""
        return self.context if self.context.ndim == 3 else self.context[:, 0]

    def split(self, x: Activations) -> tuple[Float[Tensor, "b clip h w c"], Float[Tensor, "b images h w c"]]:
        """Separate a clip's frames from the images behind them."""
        num_frames = x.shape[1] - self.num_images
        return x[:, :num_frames], x[:, num_frames:]


def sinusoids(numbers: Float[Tensor, " n"], channels: int) -> Float[Tensor, "n d"]:
    """Return cosines, then sines, of a number at ``channels / 2`` frequencies (Vaswani et al. 2017, section 3.5).

    In fp32 whatever the precision of the weights, as in training.
    """
    half = channels // 2
    exponents = -math.log(_MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=numbers.device) / half
    angles = numbers[:, None].float() * exponents.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class EmbeddingMLP(nn.Module):
    """Two linear layers after the sinusoids of numbers."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, out_channels)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Embed each row."""
        return self.linear_2(F.silu(self.linear_1(x.to(self.linear_1.weight.dtype))))


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution, computed as the product with a matrix that it is."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, input: Activations) -> Float[Tensor, "b t h w c2"]:
        """Transform each pixel."""
        return F.linear(input, self.weight[:, :, 0, 0], self.bias)


class TimeMixer(nn.Module):
    """A learned blend of what frames know by themselves and what they know of each other."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([0.5]))

    def temporal_share(
        self, is_image: Bool[Tensor, "b t"] | None, dtype: torch.dtype
    ) -> Float[Tensor, " 1"] | Float[Tensor, "b t 1 1 1"]:
        """Return the weight of the temporal part: one for all, or one a frame, which is 0 for images."""
        share = torch.sigmoid(-self.mix_factor).to(dtype)
        return share if is_image is None else torch.where(rearrange(is_image, "b t -> b t 1 1 1"), 0, share)


class SpatialResidual(nn.Module):
    """Two convolutions over space, with the embedding of noise level and conditions added between them."""

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels, eps)
        self.conv1 = SpatialConv(in_channels, out_channels)
        self.time_emb_proj = nn.Linear(embedding_channels, out_channels)
        self.norm2 = FrameNorm(out_channels, eps)
        self.conv2 = SpatialConv(out_channels, out_channels)
        self.conv_shortcut = PointwiseConv(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Activations, embedding: Float[Tensor, "b *frames d"]) -> Float[Tensor, "b t h w c2"]:
        """Apply the block; ``embedding`` has been through its activation."""
        h = convolve_normalized(x, self.norm1, self.conv1, shift=self.time_emb_proj(embedding))
        skip = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return convolve_normalized(h, self.norm2, self.conv2, residual=skip)


class TemporalResidual(nn.Module):
    """Two convolutions over time, with the embedding added between them; only the residual branch."""

    def __init__(self, channels: int, embedding_channels: int, eps: float) -> None:
        super().__init__()
        self.norm1 = ClipNorm(channels, eps)
        self.conv1 = TemporalConv(channels)
        self.time_emb_proj = nn.Linear(embedding_channels, channels)
        self.norm2 = ClipNorm(channels, eps)
        self.conv2 = TemporalConv(channels)

    def forward(self, x: Activations, embedding: Float[Tensor, "b *frames d"]) -> Activations:
        """Return what is to be added to ``x``."""
        h = convolve_normalized(x, self.norm1, self.conv1, shift=self.time_emb_proj(embedding))
        return convolve_normalized(h, self.norm2, self.conv2)


class SpatioTemporalResidual(nn.Module):
    """A spatial residual block, and a share of a temporal one.

    Args:
        in_channels: Width at the entrance, a multiple of 32.
        out_channels: Width at the exit, a multiple of 32.
        embedding_channels: Width of the embedding.
        eps: Added to variances by the normalizations.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, eps: float) -> None:
        super().__init__()
        self.spatial_res_block = SpatialResidual(in_channels, out_channels, embedding_channels, eps)
        self.temporal_res_block = TemporalResidual(out_channels, embedding_channels, eps)
        self.time_mixer = TimeMixer()

    def forward(self, x: Activations, guide: Guide) -> Float[Tensor, "b t h w c2"]:
        """Apply the block."""
        x = self.spatial_res_block(x, guide.embedding)
        clip, images = guide.split(x)
        if clip.shape[1] == 0:
            return x
        # a x + (1 - a) (x + branch) = x + (1 - a) branch
        share = self.time_mixer.temporal_share(guide.is_image, x.dtype)
        embedding = guide.embedding if guide.embedding.ndim == 2 else guide.embedding[:, : clip.shape[1]]
        mixed = torch.addcmul(clip, share, self.temporal_res_block(clip, embedding))
        return mixed if guide.num_images == 0 else torch.cat([mixed, images], dim=1)


class Attention(nn.Module):
    """Multi-head attention within frames, across frames, or to tokens.

    Args:
        channels: Width.
        num_heads: Heads; divides ``channels``.
        context_channels: Width of the tokens attended to, none for attention among the activations.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def over_space(self, x: Activations) -> Activations:
        """Attend within each frame."""
        return self._self_attention(x, "b t h w (n d) -> b t n (h w) d", "b t n (h w) d -> b t h w (n d)")

    def over_time(self, x: Activations) -> Activations:
        """Attend among the frames at each pixel."""
        return self._self_attention(x, "b t h w (n d) -> b (h w) n t d", "b (h w) n t d -> b t h w (n d)")

    def to_tokens(self, x: Activations, context: Tokens, bias: Float[Tensor, "..."] | None = None) -> Activations:
        """Attend from every pixel to the tokens of its clip, or of its frame; ``bias`` hides tokens."""
        once, split, merge = (
            ("b l (n d) -> b n l d", "b t h w (n d) -> b n (t h w) d", "b n (t h w) d -> b t h w (n d)")
            if context.ndim == 3
            else ("b t l (n d) -> b t n l d", "b t h w (n d) -> b t n (h w) d", "b t n (h w) d -> b t h w (n d)")
        )
        key, value = (rearrange(layer(context), once, n=self.num_heads) for layer in (self.to_k, self.to_v))
        attended = attend(rearrange(self.to_q(x), split, n=self.num_heads), key, value, bias)
        return self.to_out[0](rearrange(attended, merge, h=x.shape[2], w=x.shape[3]))

    def to_one_token(self, context: Tokens) -> Float[Tensor, "b t_or_1 1 1 c"]:
        """Return what every pixel gets from a single token: a softmax over one key is 1, whatever the query."""
        out = self.to_out[0](self.to_v(context.squeeze(-2)))
        return rearrange(out, "b c -> b 1 1 1 c" if context.ndim == 3 else "b t c -> b t 1 1 c")

    def _self_attention(self, x: Activations, split: str, merge: str) -> Activations:
        query, key, value = (
            rearrange(layer(x), split, n=self.num_heads) for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out[0](rearrange(attend(query, key, value), merge, h=x.shape[2], w=x.shape[3]))


class SpatialBlock(nn.Module):
    """Attention within frames and to tokens, then a feed-forward network.

    Args:
        channels: Width.
        num_heads: Heads of the attention.
        context_channels: Width of the tokens.
    """

    def __init__(self, channels: int, num_heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, num_heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Activations, context: Tokens, bias: Float[Tensor, "..."] | None = None) -> Activations:
        """Apply the block; ``bias`` is added to the scores of tokens, and hides those that are padding."""
        x = x + self.attn1.over_space(self.norm1(x))
        x = _cross_attention(self, x, context, bias)
        return add_feed_forward(x, self.norm3, self.ff)


class TemporalBlock(nn.Module):
    """A feed-forward network, attention among frames and to tokens, then another feed-forward network.

    Args:
        channels: Width.
        num_heads: Heads of the attention.
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
        x = _cross_attention(self, x, context)
        return add_feed_forward(x, self.norm3, self.ff)


class SpatioTemporalTransformer(nn.Module):
    """Spatial and temporal blocks in turn, whose outputs are blended, on top of normalized activations.

    Args:
        channels: Width, a multiple of 32.
        num_heads: Heads of each attention; divides ``channels``.
        context_channels: Width of the tokens.
        num_layers: Pairs of a spatial and a temporal block.
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

    def forward(self, x: Activations, guide: Guide) -> Activations:
        """Apply the transformer."""
        num_frames = x.shape[1] - guide.num_images
        places = torch.arange(num_frames, device=x.device).float()
        frames = rearrange(self.time_pos_embed(sinusoids(places, self.channels)), "t c -> t 1 1 c")

        h = self.proj_in(self.norm(x))
        for spatial, temporal in zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True):
            h = spatial(h, guide.context)
            clip, images = guide.split(h)
            if num_frames == 0:
                continue
            share = self.time_mixer.temporal_share(guide.is_image, h.dtype)
            mixed = torch.lerp(clip, temporal(clip + frames, guide.clip_context), share)
            h = mixed if guide.num_images == 0 else torch.cat([mixed, images], dim=1)
        return x + self.proj_out(h)


def _cross_attention(
    block: SpatialBlock | TemporalBlock, x: Activations, context: Tokens, bias: Float[Tensor, "..."] | None = None
) -> Activations:
    if context.shape[-2] == 1:
        return x + block.attn2.to_one_token(context)
    return x + block.attn2.to_tokens(block.norm2(x), context, bias)


def freeze_unused_by_one_token(module: nn.Module) -> None:
    """Freeze what can't matter where there is one token to attend to: queries, keys and the norm before them.

    Their gradients are exactly zero. Left to train, weight decay would still change them, and distributed training
    would wait for gradients that never come.
    """
    for block in module.modules():
        if isinstance(block, SpatialBlock | TemporalBlock):
            for unused in (block.norm2, block.attn2.to_q, block.attn2.to_k):
                cast(nn.Module, unused).requires_grad_(False)
