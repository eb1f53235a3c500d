import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from tests.models.networks import random_input, randomized
from vdm.models import attention
from vdm.models.attention import (
    CrossAttention,
    RelativePositions,
    SpatialAttention,
    TemporalAttention,
    attend,
    mask_bias,
)


@pytest.mark.parametrize("num_keys", [1, 7, attention._SHORT_SEQUENCE, attention._SHORT_SEQUENCE + 1])
@pytest.mark.parametrize("batch", [(2,), (2, 3), (2, 3, 2)])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_softmax_of_scaled_products(num_keys: int, batch: tuple[int, ...], biased: bool) -> None:
    query = random_input("query", *batch, 4, 5, 8)
    key, value = random_input("key", *batch, 4, num_keys, 8), random_input("value", *batch, 4, num_keys, 8)
    bias = random_input("bias", 4, 5, num_keys) if biased else None
    scores = torch.einsum("...nd,...md->...nm", query, key) / 8**0.5 + (0 if bias is None else bias)
    expected = torch.einsum("...nm,...md->...nd", scores.exp() / scores.exp().sum(-1, keepdim=True), value)

    torch.testing.assert_close(attend(query, key, value, bias), expected)


@pytest.mark.parametrize("batch", [(2,), (2, 3)])
def test_all_kernels_agree_on_values_and_gradients(batch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [random_input(name, *batch, 4, 20, 8).requires_grad_() for name in ("query", "key", "value")]
    mask = torch.arange(20).expand(*batch, 20) < 13
    results = []
    for longest, largest in ((64, 10), (0, 10), (0, 1)):
        monkeypatch.setattr(attention, "_SHORT_SEQUENCE", longest)
        monkeypatch.setattr(attention, "_LARGEST_BATCH", largest)
        attended = attend(*inputs, mask_bias(mask, torch.float32))
        results.append([attended, *torch.autograd.grad(attended.square().sum(), inputs)])

    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[2], results[1])


@pytest.mark.parametrize("batch", [(2,), (2, 3), (2, 3, 2)])
def test_long_sequences_get_the_fused_kernel_whatever_the_number_of_batch_axes(batch: tuple[int, ...]) -> None:
    query = random_input("query", *batch, 2, attention._SHORT_SEQUENCE + 1, 8)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        attend(query, query, query)
    kernels = {event.key for event in profiler.key_averages()}

    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in kernels


@pytest.mark.parametrize("num_keys", [10, attention._SHORT_SEQUENCE + 10])
def test_masked_keys_have_no_influence(num_keys: int) -> None:
    query, key = random_input("query", 2, 4, 5, 8), random_input("key", 2, 4, num_keys, 8)
    value = random_input("value", 2, 4, num_keys, 8)
    kept = num_keys - 3
    masked = attend(query, key, value, mask_bias((torch.arange(num_keys) < kept).expand(2, -1), torch.float32))

    torch.testing.assert_close(masked, attend(query, key[:, :, :kept], value[:, :, :kept]))


def test_relative_positions_depend_on_the_distance_alone_and_are_clipped() -> None:
    positions = RelativePositions(num_heads=2, max_distance=3)
    nn.init.normal_(positions.bias, generator=torch.Generator().manual_seed(0))
    bias = positions(8)

    for row in range(8):
        for column in range(8):
            distance = max(-3, min(3, column - row))
            assert torch.equal(bias[:, row, column], positions.bias[:, distance + 3])


def test_relative_positions_of_fewer_frames_are_a_part_of_those_of_more() -> None:
    positions = RelativePositions(num_heads=2, max_distance=3)
    nn.init.normal_(positions.bias, generator=torch.Generator().manual_seed(0))

    assert torch.equal(positions(12)[:, 4:9, 4:9], positions(5))


@pytest.mark.parametrize("layer", [SpatialAttention(16, 8), TemporalAttention(16, 8, 4), CrossAttention(16, 8, 6)])
def test_attention_begins_as_the_identity(layer: nn.Module) -> None:
    x = random_input("x", 2, 3, 4, 5, 16)
    text = (random_input("text", 2, 7, 6), None) if isinstance(layer, CrossAttention) else ()

    assert torch.equal(layer(x, *text), x)


def test_spatial_attention_equals_that_of_torch() -> None:
    layer = randomized(SpatialAttention(16, 8))
    peer = nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(layer.to_qkv.weight)
        peer.in_proj_bias.zero_()
        peer.out_proj.weight.copy_(layer.to_out.weight)
        peer.out_proj.bias.copy_(layer.to_out.bias)
    x = random_input("x", 2, 3, 4, 5, 16)
    tokens = layer.norm(x).reshape(6, 20, 16)

    torch.testing.assert_close(layer(x), x + peer(tokens, tokens, tokens)[0].reshape(x.shape))


def test_temporal_attention_equals_that_of_torch_with_its_positions_as_mask() -> None:
    layer = randomized(TemporalAttention(16, 8, max_distance=2))
    x = random_input("x", 2, 5, 2, 3, 16)
    tokens = layer.norm(x).permute(0, 2, 3, 1, 4).reshape(12, 5, 16)
    query, key, value = (
        part.reshape(12, 5, 2, 8).transpose(1, 2) for part in F.linear(tokens, layer.to_qkv.weight).chunk(3, dim=-1)
    )
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=layer.positions(5).expand(12, -1, -1, -1))
    out = layer.to_out(attended.transpose(1, 2).reshape(2, 2, 3, 5, 16)).permute(0, 3, 1, 2, 4)

    torch.testing.assert_close(layer(x), x + out)


def test_temporal_attention_without_positions_does_not_know_the_order_of_frames() -> None:
    layer = randomized(TemporalAttention(16, 8, max_distance=2))
    x, order = random_input("x", 1, 5, 2, 3, 16), [3, 1, 4, 0, 2]

    assert not torch.allclose(layer(x[:, order]), layer(x)[:, order], atol=1e-3)
    nn.init.zeros_(layer.positions.bias)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_independent_images_neither_change_the_clip_nor_each_other() -> None:
    layer = randomized(TemporalAttention(16, 8, max_distance=2))
    clip, images = random_input("clip", 2, 5, 2, 3, 16), random_input("images", 2, 3, 2, 3, 16)
    together = layer(torch.cat([clip, images], dim=1), num_images=3)

    torch.testing.assert_close(together[:, :5], layer(clip))
    for image in range(3):
        torch.testing.assert_close(together[:, 5 + image :][:, :1], layer(images[:, image : image + 1]))


def test_text_of_each_frame_equals_text_of_the_clip_where_all_frames_have_the_same() -> None:
    layer = randomized(CrossAttention(16, 8, 6))
    x, text = random_input("x", 2, 3, 4, 5, 16), random_input("text", 2, 7, 6)
    mask = torch.tensor([[True] * 7, [True] * 2 + [False] * 5])
    per_frame = layer(x, text[:, None].expand(-1, 3, -1, -1), mask[:, None].expand(-1, 3, -1))

    torch.testing.assert_close(per_frame, layer(x, text, mask))


def test_each_frame_reads_its_own_text() -> None:
    layer = randomized(CrossAttention(16, 8, 6))
    x, text = random_input("x", 2, 3, 4, 5, 16), random_input("text", 2, 3, 7, 6)
    whole = layer(x, text, None)

    for frame in range(3):
        torch.testing.assert_close(whole[:, frame : frame + 1], layer(x[:, frame : frame + 1], text[:, frame], None))
