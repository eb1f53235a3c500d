"""Attention for short sequences on CPUs: matrix products and a softmax, in slices that fit in the processor's cache.

Only queries, keys and values are saved for the backward pass, which recomputes the probabilities of each slice.
"""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vdm.models.lean_function import LeanFunction, wide

Heads = Float[Tensor, "b s heads n d"]
Keys = Float[Tensor, "b s heads m d"]
Bias = Float[Tensor, "heads n m"]

_SCORES = 1 << 20
"""Attention scores in a slice, unless a single sequence has more."""


def attend_in_slices(query: Heads, key: Keys, value: Keys, bias: Bias | None = None) -> Heads:
    """Return the attention of queries to keys, within each sequence of each batch member.

    Args:
        query: Queries.
        key: Keys.
        value: Values.
        bias: Added to the scores of each sequence before the softmax.
    """
    return _SlicedAttention.apply(query, key, value, bias)


def attend_in_packed_slices(
    qkv: Float[Tensor, "b t h w three_c"], num_heads: int, sequences: str, bias: Bias | None = None
) -> Float[Tensor, "b t h w c"]:
    """Return the attention within sequences of activations, whose queries, keys and values lie side by side.

    Nothing is copied to merge heads, nor to put the three gradients together.

    Args:
        qkv: Queries, keys and values of each pixel.
        num_heads: Number of heads.
        sequences: How activations ``b t h w heads d`` are divided into ``b s heads n d``, in the notation of einops.
        bias: Added to the scores of each sequence before the softmax.
    """
    return _PackedAttention.apply(qkv, bias, num_heads, sequences)


class _SlicedAttention(LeanFunction):
    factors = (0, 1, 2)

    @staticmethod
    def forward(ctx: Any, query: Heads, key: Keys, value: Keys, bias: Bias | None) -> Heads:
        ctx.save_for_backward(query, key, value, bias)
        out = torch.empty_like(query)  # same memory layout as the query, so that merging the heads copies nothing
        _attend(query, key, value, bias, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Heads) -> tuple[Heads, Keys, Keys, Bias | None]:
        query, key, value, bias = ctx.saved_tensors
        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        _attend_backward((query, key, value), bias, grad, grads, of_bias)
        return *grads, of_bias


class _PackedAttention(LeanFunction):
    factors = (0, 0)  # products of queries with keys, and of their softmax with values

    @staticmethod
    def forward(
        ctx: Any, qkv: Float[Tensor, "b t h w three_c"], bias: Bias | None, num_heads: int, sequences: str
    ) -> Float[Tensor, "b t h w c"]:
        ctx.save_for_backward(qkv, bias)
        ctx.num_heads, ctx.sequences = num_heads, sequences
        out = qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)
        query, key, value = _unpacked(qkv, 3, num_heads, sequences)
        _attend(query, key, value, bias, _unpacked(out, 1, num_heads, sequences)[0])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "b t h w c"]) -> tuple[Tensor | None, ...]:
        qkv, bias = ctx.saved_tensors
        of_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[1] else None
        shape = ctx.num_heads, ctx.sequences
        (query, key, value), grads = (_unpacked(each, 3, *shape) for each in (qkv, of_qkv))
        of_out = _unpacked(grad, 1, *shape)[0]
        _attend_backward((query, key, value), bias, of_out, (grads[0], grads[1], grads[2]), of_bias)
        return of_qkv, of_bias, None, None


def _unpacked(
    x: Float[Tensor, "b t h w n_c"], num_packed: int, num_heads: int, sequences: str
) -> Float[Tensor, "n b s heads m d"]:
    """View what lies side by side in the channels as sequences of heads."""
    return rearrange(x, f"b t h w (n heads d) -> n {sequences}", n=num_packed, heads=num_heads)


def _attend(query: Heads, key: Keys, value: Keys, bias: Bias | None, out: Heads) -> None:
    """Write the attention to ``out``."""
    for part in _slices(query, key):
        q, k, v = (_rows(tensor[part]) for tensor in (query, key, value))
        out[part] = torch.bmm(_probabilities(q, k, bias).to(v.dtype), v).view(out[part].shape)


def _attend_backward(
    given: tuple[Heads, Keys, Keys],
    bias: Bias | None,
    grad: Heads,
    grads: tuple[Heads, Keys, Keys],
    of_bias: Bias | None,
) -> None:
    """Write the gradients of query, key and value to ``grads``, and add that of the bias to ``of_bias``."""
    for part in _slices(*given[:2]):
        q, k, v, of_out = (_rows(tensor[part]) for tensor in (*given, grad))
        probabilities = _probabilities(q, k, bias)
        of_probabilities = torch.bmm(of_out, v.mT).to(probabilities.dtype)
        of_scores = torch.ops.aten._softmax_backward_data(of_probabilities, probabilities, -1, probabilities.dtype)
        if of_bias is not None:
            of_bias += of_scores.unflatten(0, (-1, len(of_bias))).sum(0)
        of_scores, probabilities = of_scores.mul_(q.shape[-1] ** -0.5).to(q.dtype), probabilities.to(q.dtype)
        parts = torch.bmm(of_scores, k), torch.bmm(of_scores.mT, q), torch.bmm(probabilities.mT, of_out)
        for whole, slice_of_it in zip(grads, parts, strict=True):
            whole[part] = slice_of_it.view(whole[part].shape)


def _probabilities(
    query: Float[Tensor, "s_heads n d"], key: Float[Tensor, "s_heads m d"], bias: Bias | None
) -> Float[Tensor, "s_heads n m"]:
    # At least fp32: large scores rounded to bfloat16 would be wrong by hundredths.
    scores = torch.bmm(wide(query) * query.shape[-1] ** -0.5, wide(key).mT)
    if bias is not None:
        scores.unflatten(0, (-1, len(bias))).add_(bias)
    return torch.softmax(scores, -1)


def _rows(tensor: Float[Tensor, "s heads n d"]) -> Float[Tensor, "s_heads n d"]:
    return tensor.contiguous().flatten(0, 1)


def _slices(query: Heads, key: Keys) -> Iterator[tuple[int, slice]]:
    batch, sequences, heads, n, _ = query.shape
    size = max(1, _SCORES // max(1, heads * n * key.shape[-2]))
    for member in range(batch):
        for start in range(0, sequences, size):
            yield member, slice(start, start + size)
