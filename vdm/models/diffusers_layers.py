"""Layers that the U-Nets of Stable Video Diffusion and ModelScope share, on activations laid out as ``b t h w c``.

Their parameters have the names and shapes that they have in diffusers, so that published weights load without
conversion. Outputs equal those of diffusers up to rounding. The implementation differs: one memory layout serves all
layers, and attention to a single token is computed in closed form.
"""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations, attend
from vdm.models.blocks import FrameNorm, SpatialConv
from vdm.models.feed_forward import FeedForward, add_feed_forward
from vdm.models.normalized_conv import convolve_normalized

Tokens = Float[Tensor, "b l e"] | Float[Tensor, "b t l e"]
"""Tokens that pixels attend to: one sequence a clip, or one a frame."""


@dataclass(frozen=True)
class BlockConditioning:
    """The input that every block of a U-Net gets beside the activations."""

    embedding: Float[Tensor, "b *frames d"]
    """Embedding of the noise level and further numbers of each clip, or of each frame, after its SiLU."""
    context: Tokens
    """Tokens for cross-attention."""
    context_bias: Float[Tensor, "..."] | None = None
    """Added to the attention scores of the tokens: minus infinity for padding. None if there is no padding."""
    is_image: Bool[Tensor, "b t"] | None = None
    """True for frames of the clip that temporal layers must leave unchanged. None if there are none."""
    num_images: int = 0
    """Number of independent images, which are the last frames. Temporal layers never mix them with other frames."""

    @property
    def clip_context(self) -> Float[Tensor, "b l e"]:
        """The tokens of the whole clip: those of its first frame if each frame has its own."""
        return self.context if self.context.ndim == 3 else self.context[:, 0]

    def split(self, x: Activations) -> tuple[Float[Tensor, "b clip h w c"], Float[Tensor, "b images h w c"]]:
        """Separate a clip's frames from the independent images that follow them."""
        num_frames = x.shape[1] - self.num_images
        return x[:, :num_frames], x[:, num_frames:]


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, input: Activations) -> Float[Tensor, "b t h w c2"]:
        """Transform each pixel."""
        return F.linear(input, self.weight[:, :, 0, 0], self.bias)


class SpatialResidual(nn.Module):
    """Residual block of two convolutions over space; the embedding is added between them."""

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels, eps)
        self.conv1 = SpatialConv(in_channels, out_channels)
        self.time_emb_proj = nn.Linear(embedding_channels, out_channels)
        self.norm2 = FrameNorm(out_channels, eps)
        self.conv2 = SpatialConv(out_channels, out_channels)
        self.conv_shortcut = PointwiseConv(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: Activations, conditioning: BlockConditioning) -> Float[Tensor, "b t h w c2"]:
        """Apply the block."""
        h = convolve_normalized(x, self.norm1, self.conv1, shift=self.time_emb_proj(conditioning.embedding))
        skip = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return convolve_normalized(h, self.norm2, self.conv2, residual=skip)


class Attention(nn.Module):
    """Multi-head attention within frames, across frames, or to tokens.

    Args:
        channels: Width.
        num_heads: Number of heads; divides ``channels``.
        context_channels: Width of the tokens. None for self-attention.
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
        """Attend across the frames at each pixel."""
        return self._self_attention(x, "b t h w (n d) -> b (h w) n t d", "b (h w) n t d -> b t h w (n d)")

    def to_tokens(self, x: Activations, context: Tokens, bias: Float[Tensor, "..."] | None = None) -> Activations:
        """Attend from every pixel to the tokens of its clip, or of its frame.

        Args:
            x: Activations.
            context: The tokens.
            bias: Added to the scores; minus infinity hides a token.
        """
        once, split, merge = (
            ("b l (n d) -> b n l d", "b t h w (n d) -> b n (t h w) d", "b n (t h w) d -> b t h w (n d)")
            if context.ndim == 3
            else ("b t l (n d) -> b t n l d", "b t h w (n d) -> b t n (h w) d", "b t n (h w) d -> b t h w (n d)")
        )
        key, value = (rearrange(layer(context), once, n=self.num_heads) for layer in (self.to_k, self.to_v))
        attended = attend(rearrange(self.to_q(x), split, n=self.num_heads), key, value, bias)
        return self.to_out[0](rearrange(attended, merge, h=x.shape[2], w=x.shape[3]))

    def to_one_token(self, context: Tokens) -> Float[Tensor, "b t_or_1 1 1 c"]:
        """Return the output at every pixel for a single token: a softmax over one key is 1, whatever the query."""
        out = self.to_out[0](self.to_v(context.squeeze(-2)))
        return rearrange(out, "b c -> b 1 1 1 c" if context.ndim == 3 else "b t c -> b t 1 1 c")

    def _self_attention(self, x: Activations, split: str, merge: str) -> Activations:
        query, key, value = (
            rearrange(layer(x), split, n=self.num_heads) for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out[0](rearrange(attend(query, key, value), merge, h=x.shape[2], w=x.shape[3]))


def add_cross_attention(
    x: Activations, norm: nn.Module, attention: Attention, context: Tokens, bias: Float[Tensor, "..."] | None = None
) -> Activations:
    """Return ``x`` plus the attention of ``norm(x)`` to tokens; one token needs neither queries nor ``norm``."""
    if context.shape[-2] == 1:
        return x + attention.to_one_token(context)
    return x + attention.to_tokens(norm(x), context, bias)


class SpatialBlock(nn.Module):
    """Self-attention within frames, cross-attention to tokens, and a feed-forward network.

    Args:
        channels: Width.
        num_heads: Number of attention heads.
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
        """Apply the block; ``bias`` is added to the attention scores of the tokens."""
        x = x + self.attn1.over_space(self.norm1(x))
        x = add_cross_attention(x, self.norm2, self.attn2, context, bias)
        return add_feed_forward(x, self.norm3, self.ff)
