"""Layers of the space-time transformer, on activations laid out as ``b t h w c``.

Their parameters have the names and shapes that they have in diffusers' ``WanTransformer3DModel``, so that published
weights load without conversion.
"""

from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.models.attention import Activations, attend
from vdm.models.diffusers_layers import Tokens
from vdm.models.dit.lean import Modulation, gated_sum, linear_of_gelu, linears_of_modulated_norm
from vdm.models.dit.rotary import Rotation, rotate
from vdm.models.lean_function import wide

EPS = 1e-6
"""Added to variances in normalizations."""


@dataclass(frozen=True)
class TokenConditioning:
    """The input that every block gets beside the activations."""

    modulation: Float[Tensor, "b t_or_1 six c"]
    """Shift, scale and gate of attention, then of the feed-forward network, of each clip or frame; at least fp32."""
    rotation: Rotation
    """Positions of the tokens."""
    text: Tokens | None = None
    """Text tokens of each clip, or of each frame, embedded."""
    text_bias: Float[Tensor, "..."] | None = None
    """Added to the attention scores of text tokens: minus infinity for padding. None if there is none to hide."""
    image: Float[Tensor, "b l2 c"] | None = None
    """Tokens of the images that a clip is conditioned on, embedded."""
    num_images: int = 0
    """Number of independent images, which are the last frames and attend to nothing but themselves and their text."""


class WideLayerNorm(nn.LayerNorm):
    """Layer normalization in fp32 at least, whatever the precision of the activations; the result stays wide."""

    def forward(self, input: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Normalize each token."""
        weight, bias = (None if parameter is None else wide(parameter) for parameter in (self.weight, self.bias))
        return F.layer_norm(wide(input), self.normalized_shape, weight, bias, self.eps)


class WideRMSNorm(nn.RMSNorm):
    """Root-mean-square normalization in fp32 at least; the result stays wide."""

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Normalize each token."""
        return F.rms_norm(wide(x), self.normalized_shape, wide(self.weight), self.eps)


class Entrance(nn.Module):
    """The first linear layer of a feed-forward network, under the name that it has in published weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c2"]:
        """Transform each token."""
        return self.proj(x)


class UngatedFeedForward(nn.Module):
    """Feed-forward network with GELU.

    Args:
        in_channels: Width of the input.
        hidden_channels: Width between its two layers.
        out_channels: Width of the output.
        approximate: ``tanh`` or ``none``: how GELU is computed.
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, approximate: str) -> None:
        super().__init__()
        # Published weights number the layers 0 and 2; layer 1 was dropout.
        first, last = Entrance(in_channels, hidden_channels), nn.Linear(hidden_channels, out_channels)
        self.net = nn.ModuleList([first, nn.Identity(), last])
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c2"]:
        """Transform each token."""
        return linear_of_gelu(self.net[0](x), self.net[2], self.approximate)

    def of_modulated_norm(self, x: Activations, shift: Modulation, scale: Modulation) -> Activations:
        """Transform normalized and modulated tokens; see ``linears_of_modulated_norm``."""
        entrance = cast(Entrance, self.net[0])
        (hidden,) = linears_of_modulated_norm(x, shift, scale, EPS, [entrance.proj])
        return linear_of_gelu(hidden, self.net[2], self.approximate)


class NormedAttention(nn.Module):
    """Multi-head attention whose queries and keys are normalized across heads (Zhang & Sennrich 2019, RMSNorm).

    Args:
        channels: Width.
        num_heads: Number of heads; divides ``channels``.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.norm_q, self.norm_k = WideRMSNorm(channels, EPS), WideRMSNorm(channels, EPS)

    def in_heads(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b n d"]:
        """Divide channels among the heads."""
        return rearrange(x, "... (n d) -> ... n d", n=self.num_heads)


class RotarySelfAttention(NormedAttention):
    """Attention among all tokens of a clip, with rotary positions; independent images attend to themselves."""

    def forward(
        self, x: Activations, shift: Modulation, scale: Modulation, rotation: Rotation, num_images: int = 0
    ) -> Activations:
        """Attend among normalized and modulated tokens; the last ``num_images`` frames are independent images."""
        layers = (self.to_q, self.to_k, self.to_v)
        query, key, value = linears_of_modulated_norm(x, shift, scale, EPS, layers)
        value = self.in_heads(value)
        query, key = (
            rotate(self.in_heads(norm(each)), rotation).to(value.dtype)
            for norm, each in ((self.norm_q, query), (self.norm_k, key))
        )
        num_frames, (h, w) = x.shape[1] - num_images, x.shape[2:4]
        parts: list[Activations] = []
        if num_frames:
            clip = (rearrange(each[:, :num_frames], "b t h w n d -> b n (t h w) d") for each in (query, key, value))
            parts.append(rearrange(attend(*clip), "b n (t h w) d -> b t h w (n d)", h=h, w=w))
        if num_images:
            images = (rearrange(each[:, num_frames:], "b k h w n d -> b k n (h w) d") for each in (query, key, value))
            parts.append(rearrange(attend(*images), "b k n (h w) d -> b k h w (n d)", h=h))
        return self.to_out[0](parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))


class TokenAttention(NormedAttention):
    """Attention from every token of a clip to those of its text and, added to that, to those of images.

    Args:
        channels: Width, also of text and image tokens.
        num_heads: Number of heads.
        has_images: Whether clips are conditioned on images.
    """

    def __init__(self, channels: int, num_heads: int, has_images: bool) -> None:
        super().__init__(channels, num_heads)
        self.has_images = has_images
        if has_images:
            self.add_k_proj, self.add_v_proj = nn.Linear(channels, channels), nn.Linear(channels, channels)
            self.norm_added_k = WideRMSNorm(channels, EPS)

    def forward(self, x: Activations, norm: nn.LayerNorm, conditioning: TokenConditioning) -> Activations:
        """Attend from normalized tokens to text and images."""
        shift, scale = (wide(weight)[None, None, None, None] for weight in (norm.bias, norm.weight))
        (projected,) = linears_of_modulated_norm(x, shift, scale - 1, EPS, [self.to_q])
        query = self.in_heads(self.norm_q(projected).to(projected.dtype))
        attended = self._to_text(query, conditioning)
        if self.has_images and conditioning.image is not None:
            num_frames = x.shape[1] - conditioning.num_images
            key, value = self._keys_and_values(conditioning.image, self.add_k_proj, self.norm_added_k, self.add_v_proj)
            of_clip = _attend_to_clip(query[:, :num_frames], key, value)
            # Independent images are conditioned on no image.
            attended = attended + F.pad(of_clip, (0, 0, 0, 0, 0, 0, 0, conditioning.num_images))
        return self.to_out[0](attended)

    def _keys_and_values(
        self, tokens: Tokens, to_key: nn.Module, norm: nn.Module, to_value: nn.Module
    ) -> tuple[Float[Tensor, "*b n d"], Float[Tensor, "*b n d"]]:
        value = to_value(tokens)
        return self.in_heads(norm(to_key(tokens)).to(value.dtype)), self.in_heads(value)

    def _to_text(self, query: Float[Tensor, "b t h w n d"], conditioning: TokenConditioning) -> Activations:
        text = conditioning.text
        assert text is not None
        key, value = self._keys_and_values(text, self.to_k, self.norm_k, self.to_v)
        if text.ndim == 3:
            return _attend_to_clip(query, key, value, conditioning.text_bias)
        query = rearrange(query, "b t h w n d -> b t n (h w) d")
        key, value = (rearrange(each, "b t l n d -> b t n l d") for each in (key, value))
        attended = attend(query, key, value, conditioning.text_bias)
        h = conditioning.rotation.cos.shape[1]
        return rearrange(attended, "b t n (h w) d -> b t h w (n d)", h=h)


def _attend_to_clip(
    query: Float[Tensor, "b t h w n d"],
    key: Float[Tensor, "b l n d"],
    value: Float[Tensor, "b l n d"],
    bias: Float[Tensor, "..."] | None = None,
) -> Activations:
    """Attend from all tokens of a clip to one sequence."""
    t, h, w = query.shape[1:4]
    key, value = (rearrange(each, "b l n d -> b n l d") for each in (key, value))
    attended = attend(rearrange(query, "b t h w n d -> b n (t h w) d"), key, value, bias)
    return rearrange(attended, "b n (t h w) d -> b t h w (n d)", t=t, h=h, w=w)


class TransformerBlock(nn.Module):
    """Self-attention over space and time, attention to conditions, and a feed-forward network.

    The noise level shifts and scales the inputs of the first and last, and scales their outputs (Peebles & Xie 2023,
    section 3.2). A learned table in each block is added to modulations that all blocks share (Chen et al. 2023,
    "PixArt-alpha", section 2.3).

    Args:
        channels: Width.
        num_heads: Number of attention heads.
        hidden_channels: Width inside the feed-forward network.
        has_text: Whether the block attends to text and images.
        has_images: Whether clips are conditioned on images.
    """

    def __init__(self, channels: int, num_heads: int, hidden_channels: int, has_text: bool, has_images: bool) -> None:
        super().__init__()
        self.attn1 = RotarySelfAttention(channels, num_heads)
        self.norm2 = WideLayerNorm(channels, EPS) if has_text else None
        self.attn2 = TokenAttention(channels, num_heads, has_images) if has_text else None
        self.ffn = UngatedFeedForward(channels, hidden_channels, channels, approximate="tanh")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, channels) / channels**0.5)

    def forward(self, x: Activations, conditioning: TokenConditioning) -> Activations:
        """Apply the block."""
        modulation = rearrange(self.scale_shift_table + conditioning.modulation, "b t n c -> n b t 1 1 c")
        shift1, scale1, gate1, shift3, scale3, gate3 = modulation
        attended = self.attn1(x, shift1, scale1, conditioning.rotation, conditioning.num_images)
        x = gated_sum(x, attended, gate1)
        if self.norm2 is not None and self.attn2 is not None and conditioning.text is not None:
            x = x + self.attn2(x, self.norm2, conditioning)
        return gated_sum(x, self.ffn.of_modulated_norm(x, shift3, scale3), gate3)
