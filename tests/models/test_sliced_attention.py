"""Attention in slices, against its formula and PyTorch's own."""

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from tests.models.networks import random_input
from vdm.models import sliced_attention
from vdm.models.sliced_attention import attend_in_packed_slices, attend_in_slices


@pytest.fixture(autouse=True)
def _several_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_attention, "_SCORES", 2 * 5 * 7 * 3)  # three of eight sequences at a time


def heads(name: str, tokens: int) -> torch.Tensor:
    """Return heads laid out as they are in activations: tokens first, then heads."""
    return random_input(name, 2, tokens, 8, 2, 4).permute(0, 2, 3, 1, 4)


def test_output_is_that_of_pytorch() -> None:
    query, key, value = heads("query", 5).double(), heads("key", 7).double(), heads("value", 7).double()
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend_in_slices(query, key, value), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    given = [heads(name, tokens).double()[:1, :4].requires_grad_() for name, tokens in (("q", 5), ("k", 7), ("v", 7))]
    assert torch.autograd.gradcheck(attend_in_slices, given)


def test_a_bias_of_each_head_is_added_to_the_scores_of_all_sequences() -> None:
    query, key, value = heads("query", 5).double(), heads("key", 7).double(), heads("value", 7).double()
    bias = random_input("bias", 2, 5, 7).double()
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.expand(2, 8, -1, -1, -1))
    torch.testing.assert_close(attend_in_slices(query, key, value, bias), expected, rtol=1e-12, atol=1e-12)
    given = [tensor[:1, :4].requires_grad_() for tensor in (query, key, value)] + [bias.requires_grad_()]
    assert torch.autograd.gradcheck(attend_in_slices, given)


@pytest.mark.parametrize("sequences", ["b t heads (h w) d", "b (h w) heads t d"])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_attention_is_that_of_its_parts(sequences: str, biased: bool) -> None:
    qkv = random_input("qkv", 2, 3, 2, 4, 3 * 2 * 4).double().requires_grad_()
    query, key, value = rearrange(qkv, f"b t h w (n heads d) -> n {sequences}", n=3, heads=2)
    bias = random_input("bias", 2, query.shape[-2], query.shape[-2]).double().requires_grad_() if biased else None
    mask = None if bias is None else bias.expand(*query.shape[:2], -1, -1, -1)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    expected = rearrange(expected, f"{sequences} -> b t h w (heads d)", t=3, h=2)
    found = attend_in_packed_slices(qkv, 2, sequences, bias)

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    trained = [each for each in (qkv, bias) if each is not None]
    gradients = [torch.autograd.grad(out.square().sum(), trained, retain_graph=True) for out in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1.0, 4.0])
def test_bfloat16_is_nearly_as_exact_as_the_fused_kernel(size: float) -> None:
    query, key, value = ((size * heads(name, 7)).bfloat16() for name in ("query", "key", "value"))
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    fused = F.scaled_dot_product_attention(query, key, value)
    assert (attend_in_slices(query, key, value) - exact).norm() < 1.5 * (fused - exact).norm()
