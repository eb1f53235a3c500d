"""Attention over space, over time and to text, on activations laid out as ``b t h w c``.

In this layout, viewing pixels as tokens for attention over space copies nothing. The kernel is chosen by shape.
"""

from typing import TypeVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from vdm.models.sliced_attention import attend_in_packed_slices, attend_in_slices

Activations = Float[Tensor, "b t h w c"]
Layer = TypeVar("Layer", bound=nn.Module)

_SHORT_SEQUENCE, _SHORT_IN_BFLOAT16 = 64, 256
"""Up to this many keys, matrix products and a softmax are faster than the fused kernel on CPUs; see docs/svd.md."""
_ZERO3 = "ds_tensor"
"""Attribute of weights that DeepSpeed's ZeRO-3 has divided among the processes."""
_LARGEST_BATCH = 65535
"""Largest batch that CUDA's fused kernels take (github.com/pytorch/pytorch/issues/142228)."""


def is_plain(*layers: nn.Module) -> bool:
    """Return whether layers are PyTorch's own classes, so that their weights can be used without calling them."""
    return all(type(layer) in (nn.Linear, nn.LayerNorm) for layer in layers) and is_at_hand(*layers)


def is_at_hand(*layers: nn.Module) -> bool:
    """Return whether the weights of layers stay on this device: under ZeRO-3 they are gathered for calls of a layer.

    Some are gathered ahead of the call, but without one they are gone in the backward pass.
    """
    weights = [weight for layer in layers for weight in layer.parameters(recurse=False)]
    return all(weight.numel() > 0 and not hasattr(weight, _ZERO3) for weight in weights)


def is_in_cpu_memory(x: Tensor) -> bool:
    """Return whether slices of ``x`` can stay in a processor's cache; fake tensors (of ``vdm plan``) have none."""
    return x.device.type == "cpu" and not isinstance(x, FakeTensor)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the data type in which a linear layer would compute: that of autocast, or else that of ``x``."""
    kind = x.device.type
    autocast = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else x.dtype


def attend(
    query: Float[Tensor, "*b heads n d"],
    key: Float[Tensor, "*b heads m d"],
    value: Float[Tensor, "*b heads m d"],
    bias: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*b heads n d"]:
    """Scaled dot-product attention with the kernel that suits the shape and the device.

    Args:
        query: Queries.
        key: Keys.
        value: Values.
        bias: Added to the scores before the softmax; broadcasts to ``*b heads n m``.
    """
    same_for_all = bias is None or bias.ndim == 3
    if same_for_all and query.ndim == 5 and _are_short(query, key.shape[-2]):
        return attend_in_slices(query, key, value, bias)
    if query.device.type == "cpu" and key.shape[-2] <= _SHORT_SEQUENCE:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return (scores if bias is None else scores + bias).softmax(-1).to(value.dtype) @ value
    shape = query.shape
    # With more than one batch axis, PyTorch would silently fall back to its slow, unfused kernel.
    if query.ndim > 4 and shape[:-3].numel() <= _LARGEST_BATCH:
        query, key, value = query.flatten(0, -4), key.flatten(0, -4), value.flatten(0, -4)
        bias = bias.flatten(0, -4) if bias is not None and bias.ndim > 4 else bias
    mask = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).reshape(shape)


def attend_within(
    qkv: Float[Tensor, "b t h w three_c"],
    num_heads: int,
    sequences: str,
    bias: Float[Tensor, "heads n n"] | None = None,
) -> Activations:
    """Self-attention within sequences of activations.

    Args:
        qkv: Queries, keys and values of each pixel, side by side.
        num_heads: Number of heads.
        sequences: How activations ``b t h w heads d`` are divided into ``b s heads n d``, in the notation of einops.
        bias: Added to the scores before the softmax.
    """
    _, t, h, w, _ = qkv.shape
    query, key, value = rearrange(qkv, f"b t h w (n heads d) -> n {sequences}", n=3, heads=num_heads)
    if _are_short(query, key.shape[-2]):
        return attend_in_packed_slices(qkv, num_heads, sequences, bias)
    return rearrange(attend(query, key, value, bias), f"{sequences} -> b t h w (heads d)", t=t, h=h, w=w)


def _are_short(query: Tensor, num_keys: int) -> bool:
    """Return whether products in slices beat the fused kernel: for short sequences on CPUs."""
    limit = _SHORT_IN_BFLOAT16 if query.dtype == torch.bfloat16 else _SHORT_SEQUENCE
    return query.device.type == "cpu" and num_keys <= limit and not torch.compiler.is_compiling()


def mask_bias(mask: Bool[Tensor, "*b m"], dtype: torch.dtype) -> Float[Tensor, "*b 1 1 m"]:
    """Return the bias that hides keys where ``mask`` is False."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
    return bias[..., None, None, :]


def zeroed(layer: Layer) -> Layer:
    """Set a layer's weights to zero, so that a residual branch that ends in it is zero at initialization."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class RelativePositions(nn.Module):
    """Relative position bias: a learned number for each head and distance in frames (Shaw et al. 2018).

    Args:
        num_heads: Number of attention heads.
        max_distance: Distances are clipped to this value, so that any number of frames can be generated.
    """

    def __init__(self, num_heads: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.bias = nn.Parameter(torch.zeros(num_heads, 2 * max_distance + 1))

    def forward(self, num_frames: int) -> Float[Tensor, "heads t t"]:
        """Return the bias from each frame (rows) to each frame (columns)."""
        frame = torch.arange(num_frames, device=self.bias.device)
        distance: Int[Tensor, "t t"] = (frame[None, :] - frame[:, None]).clamp(-self.max_distance, self.max_distance)
        return self.bias[:, distance + self.max_distance]


class SpatialAttention(nn.Module):
    """Residual self-attention among the pixels of each frame.

    Args:
        channels: Width.
        head_channels: Width of a head; divides ``channels``.
    """

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.num_heads = channels // head_channels
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Activations) -> Activations:
        """Attend within each frame."""
        attended = attend_within(self.to_qkv(self.norm(x)), self.num_heads, "b t heads (h w) d")
        return x + self.to_out(attended)


class TemporalAttention(nn.Module):
    """Residual self-attention among the frames at each pixel, with relative positions.

    Ho et al. 2022, section 3. Independent images, which may follow the clip's frames, attend only to themselves: a
    softmax over one key is 1, so the output is their value.

    Args:
        channels: Width.
        head_channels: Width of a head; divides ``channels``.
        max_distance: Distances between frames are clipped to this value.
    """

    def __init__(self, channels: int, head_channels: int, max_distance: int) -> None:
        super().__init__()
        self.num_heads = channels // head_channels
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = zeroed(nn.Linear(channels, channels))
        self.positions = RelativePositions(self.num_heads, max_distance)

    def forward(self, x: Activations, num_images: int = 0) -> Activations:
        """Attend among the frames of the clip; the last ``num_images`` frames are independent images."""
        num_frames = x.shape[1] - num_images
        qkv = self.to_qkv(self.norm(x))
        attended = attend_within(qkv[:, :num_frames], self.num_heads, "b (h w) heads t d", self.positions(num_frames))
        if num_images > 0:
            attended = torch.cat([attended, qkv[:, num_frames:].chunk(3, -1)[2]], dim=1)
        return x + self.to_out(attended)


class CrossAttention(nn.Module):
    """Residual attention from every pixel to the tokens of the text.

    Args:
        channels: Width.
        head_channels: Width of a head; divides ``channels``.
        text_channels: Width of the tokens.
    """

    def __init__(self, channels: int, head_channels: int, text_channels: int) -> None:
        super().__init__()
        self.num_heads = channels // head_channels
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(text_channels, 2 * channels, bias=False)
        self.to_out = zeroed(nn.Linear(channels, channels))

    def forward(
        self,
        x: Activations,
        text: Float[Tensor, "b l d"] | Float[Tensor, "b t l d"],
        mask: Bool[Tensor, "b l"] | Bool[Tensor, "b t l"] | None,
    ) -> Activations:
        """Attend to the tokens of the clip, or of each frame if ``text`` has one sequence a frame."""
        bias = None if mask is None else mask_bias(mask, x.dtype)
        query = self.to_q(self.norm(x))
        if text.ndim == 3:
            query = rearrange(query, "b t h w (heads d) -> b heads (t h w) d", heads=self.num_heads)
        else:
            query = rearrange(query, "b t h w (heads d) -> b t heads (h w) d", heads=self.num_heads)
        key, value = rearrange(self.to_kv(text), "... l (n heads d) -> n ... heads l d", n=2, heads=self.num_heads)
        attended = attend(query, key, value, bias)
        _, t, h, w, _ = x.shape
        pattern = (
            "b heads (t h w) d -> b t h w (heads d)" if text.ndim == 3 else "b t heads (h w) d -> b t h w (heads d)"
        )
        return x + self.to_out(rearrange(attended, pattern, t=t, h=h, w=w))
