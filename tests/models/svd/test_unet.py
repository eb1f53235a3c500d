"""Our network of Stable Video Diffusion against diffusers' with the same weights."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn

from tests.models.svd.peers import Inputs, Sizes, diffusers_unet, our_unet
from vdm.models.svd.unet import IMAGE_ONLY_INDICATOR, SVDUNet
from vdm.types import Conditioning

SMALL = Sizes()
VARIANTS = {
    "two levels": SMALL,
    "three levels, two blocks": Sizes((32, 64, 96), (1, 2, 3), 2, (0, 1), 1, 24, 16),
    "attention at every level": Sizes((64, 32), (4, 2), 1, (0, 1)),
    "two layers a transformer": Sizes((32, 64), (2, 4), 1, (1,), 2),
}


def pair(sizes: Sizes, dtype: torch.dtype, **options: object) -> tuple[SVDUNet, UNetSpatioTemporalConditionModel]:
    theirs = diffusers_unet(sizes)
    ours = our_unet(sizes, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("sizes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_outputs_equal_those_of_diffusers(sizes: Sizes, batch_size: int) -> None:
    inputs = Inputs.random(batch_size, 4, channels=sizes.context_channels)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
            ours, theirs = pair(sizes, dtype)
            given = inputs.to(dtype)
            torch.testing.assert_close(given.of_ours(ours), given.of_diffusers(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_gradients_equal_those_of_diffusers(batch_size: int) -> None:
    ours, theirs = pair(VARIANTS["three levels, two blocks"], torch.float64)
    inputs = Inputs.random(batch_size, 3, channels=24).to(torch.float64)
    for output in (inputs.of_ours(ours), inputs.of_diffusers(theirs)):
        (output**2).sum().backward()

    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient = expected[name].grad
        assert gradient is not None
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad, gradient, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert parameter.grad is None
            assert gradient.abs().max() < 1e-10, f"{name} is frozen, but matters"


def test_frozen_is_just_what_attention_to_one_token_leaves_unused() -> None:
    frozen = {name for name, parameter in our_unet(SMALL).named_parameters() if not parameter.requires_grad}
    block = "mid_block.attentions.0.temporal_transformer_blocks.0"

    assert {f"{block}.norm2.weight", f"{block}.norm2.bias", f"{block}.attn2.to_q.weight"} <= frozen
    assert all(".norm2." in name or ".attn2.to_q." in name or ".attn2.to_k." in name for name in frozen)
    assert not any("res_block" in name for name in frozen)
    assert all(parameter.requires_grad for parameter in our_unet(SMALL, one_token=False).parameters())


def test_several_tokens_are_attended_to_as_diffusers_does() -> None:
    ours, theirs = pair(SMALL, torch.float64, one_token=False)
    inputs = Inputs.random(2, 3, tokens=5).to(torch.float64)

    torch.testing.assert_close(inputs.of_ours(ours), inputs.of_diffusers(theirs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (5, 16)], ids=str)
def test_sizes_that_halve_unevenly_equal_diffusers(size: tuple[int, int]) -> None:
    sizes = VARIANTS["three levels, two blocks"]
    ours, theirs = pair(sizes, torch.float64)
    inputs = Inputs.random(1, 2, size, sizes.context_channels).to(torch.float64)

    torch.testing.assert_close(inputs.of_ours(ours), inputs.of_diffusers(theirs), rtol=1e-10, atol=1e-10)


def say_all_are_images(network: UNetSpatioTemporalConditionModel) -> None:
    """Make diffusers' network, which always says that frames are a clip's, say that all are images."""

    def replace(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, torch.Tensor]) -> object:
        return args, {**kwargs, "image_only_indicator": torch.ones_like(kwargs["image_only_indicator"])}

    for block in (*network.down_blocks, network.mid_block, *network.up_blocks):
        block.register_forward_pre_hook(replace, with_kwargs=True)


def test_batches_of_images_equal_diffusers() -> None:
    ours, theirs = pair(SMALL, torch.float64)
    say_all_are_images(theirs)
    inputs = Inputs.random(3, 4).to(torch.float64)
    expected = inputs.of_diffusers(theirs)
    indicator = torch.ones(3, 4, dtype=torch.bool)

    marked = inputs.of_ours(ours, **{IMAGE_ONLY_INDICATOR: indicator})
    torch.testing.assert_close(marked, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(inputs.of_ours(ours, num_images=4), expected, rtol=1e-10, atol=1e-10)


def test_clips_and_images_share_a_batch() -> None:
    ours, _ = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 4).to(torch.float64)
    indicator = torch.tensor([[False] * 4, [True] * 4])
    together = inputs.of_ours(ours, **{IMAGE_ONLY_INDICATOR: indicator})

    torch.testing.assert_close(together[0], inputs.of_ours(ours)[0])
    torch.testing.assert_close(together[1], inputs.of_ours(ours, num_images=4)[1])


def test_images_behind_a_clip_change_nothing_in_it() -> None:
    ours, _ = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 5).to(torch.float64)
    together = inputs.of_ours(ours, num_images=2)

    def part(frames: slice) -> Inputs:
        return Inputs(inputs.xt[:, :, frames], inputs.c_noise, inputs.token, inputs.image[:, :, frames], inputs.ids)

    torch.testing.assert_close(together[:, :, :3], part(slice(0, 3)).of_ours(ours))
    torch.testing.assert_close(together[:, :, 4:], part(slice(4, 5)).of_ours(ours, num_images=1))


def test_tokens_may_differ_from_frame_to_frame() -> None:
    ours, _ = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 3).to(torch.float64)
    for tokens in (inputs.token, torch.cat([inputs.token, 2 * inputs.token], dim=1)):
        for_all = Inputs(inputs.xt, inputs.c_noise, tokens, inputs.image, inputs.ids)
        by_frame = Inputs(inputs.xt, inputs.c_noise, tokens[:, None].expand(-1, 3, -1, -1), inputs.image, inputs.ids)
        torch.testing.assert_close(by_frame.of_ours(ours), for_all.of_ours(ours))


def test_no_image_is_a_token_and_latents_of_zeros() -> None:
    ours, _ = pair(SMALL, torch.float32)
    inputs = Inputs.random(2, 3)
    zeros = Inputs(inputs.xt, inputs.c_noise, 0 * inputs.token, 0 * inputs.image, inputs.ids)
    without = ours(inputs.xt, inputs.c_noise, Conditioning(extra={"added_time_ids": inputs.ids}))

    assert torch.equal(without, zeros.of_ours(ours))


def test_the_published_size_has_the_keys_and_shapes_of_diffusers() -> None:
    with torch.device("meta"):
        ours, theirs = SVDUNet(), UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20))

    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }
    assert sum(parameter.numel() for parameter in ours.parameters()) == 1_524_623_082


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (32, 48)}, r"channels must be one multiple of 32 a level, but is \[32, 48\]"),
        ({"num_heads": (1,)}, r"num_heads must be one number a level \(2\), but is \[1\]"),
        ({"num_heads": (2, 3)}, r"num_heads must divide each width, but 3 does not divide 64"),
        ({"attention_levels": (2,)}, r"attention_levels must lie between 0 and 1, but has \[2\]"),
        ({"num_blocks": 0}, r"num_blocks must be at least 1, but is 0"),
        ({"time_id_channels": 3}, r"time_id_channels must be even, cosine and sine, but is 3"),
    ],
    ids=str,
)
def test_mistaken_sizes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        our_unet(SMALL, **options)


def test_missing_numbers_are_named() -> None:
    inputs = Inputs.random(1, 2)
    with pytest.raises(ValueError, match=r"^added_time_ids must be of shape \[1, 3\], but are missing$"):
        our_unet(SMALL)(inputs.xt, inputs.c_noise, Conditioning())


@pytest.mark.parametrize("num_images", [0, 2])
def test_a_noise_level_a_frame_that_is_the_same_for_all_is_one_a_clip(num_images: int) -> None:
    ours, inputs = pair(SMALL, torch.float64)[0], Inputs.random(2, 4).to(torch.float64)
    per_frame = replace(inputs, c_noise=inputs.c_noise[:, None].expand(-1, 4))

    torch.testing.assert_close(per_frame.of_ours(ours, num_images), inputs.of_ours(ours, num_images))


def test_each_frame_is_told_its_own_noise_level() -> None:
    """Images beside each other are clips of one frame without temporal layers, each with its own level."""
    ours, inputs = pair(SMALL, torch.float64)[0], Inputs.random(2, 3).to(torch.float64)
    levels = torch.tensor([[0.3, -1.2, 1.6], [0.0, 0.7, -0.5]])
    together = replace(inputs, c_noise=levels).of_ours(ours, num_images=3)

    for frame in range(3):
        only = slice(frame, frame + 1)
        part = replace(inputs, xt=inputs.xt[:, :, only], image=inputs.image[:, :, only], c_noise=levels[:, frame])
        torch.testing.assert_close(together[:, :, only], part.of_ours(ours, num_images=1))
