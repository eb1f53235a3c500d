"""Attention for short sequences on CPUs: matrix products and a softmax, in slices that fit in the processor's cache.

Only queries, keys and values are saved for the backward pass, which recomputes the probabilities of each slice.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vdm.models.lean_function import LeanFunction

Heads = Float[Tensor, "b s heads n d"]
Keys = Float[Tensor, "b s heads m d"]

_SCORES = 1 << 20
"""Attention scores in a slice, unless a single sequence has more."""


def attend_in_slices(query: Heads, key: Keys, value: Keys) -> Heads:
    """Return the attention of queries to keys, within each sequence of each batch member."""
    return _SlicedAttention.apply(query, key, value)


class _SlicedAttention(LeanFunction):
    @staticmethod
    def forward(ctx: Any, query: Heads, key: Keys, value: Keys) -> Heads:
        ctx.save_for_backward(query, key, value)
        out = torch.empty_like(query)  # same memory layout as the query, so that merging the heads copies nothing
        for part in _slices(query, key):
            q, k, v = (_rows(tensor[part]) for tensor in (query, key, value))
            out[part] = torch.bmm(_probabilities(q, k).to(v.dtype), v).view(out[part].shape)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Heads) -> tuple[Heads, Keys, Keys]:
        query, key, value = ctx.saved_tensors
        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for part in _slices(query, key):
            q, k, v, of_out = (_rows(tensor[part]) for tensor in (query, key, value, grad))
            probabilities = _probabilities(q, k)
            of_probabilities = torch.bmm(of_out, v.mT).to(probabilities.dtype)
            of_scores = torch.ops.aten._softmax_backward_data(of_probabilities, probabilities, -1, probabilities.dtype)
            of_scores, probabilities = of_scores.mul_(q.shape[-1] ** -0.5).to(q.dtype), probabilities.to(q.dtype)
            parts = torch.bmm(of_scores, k), torch.bmm(of_scores.mT, q), torch.bmm(probabilities.mT, of_out)
            for whole, slice_of_it in zip(grads, parts, strict=True):
                whole[part] = slice_of_it.view(whole[part].shape)
        return grads


def _probabilities(query: Float[Tensor, "s n d"], key: Float[Tensor, "s m d"]) -> Float[Tensor, "s n m"]:
    # At least fp32: large scores rounded to bfloat16 would be wrong by hundredths.
    query, key = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (query, key))
    return torch.softmax(torch.bmm(query * query.shape[-1] ** -0.5, key.mT), -1)


def _rows(tensor: Float[Tensor, "s heads n d"]) -> Float[Tensor, "s_heads n d"]:
    return tensor.contiguous().flatten(0, 1)


def _slices(query: Heads, key: Keys) -> Iterator[tuple[int, slice]]:
    batch, sequences, heads, n, _ = query.shape
    size = max(1, _SCORES // (heads * n * key.shape[-2]))
    for member in range(batch):
        for start in range(0, sequences, size):
            yield member, slice(start, start + size)
