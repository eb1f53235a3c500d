"""Our text-to-video U-Net against diffusers' with the same weights."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet3DConditionModel

from tests.models.modelscope.peers import Inputs, Sizes, diffusers_unet, our_unet
from vdm.models.modelscope.unet import ModelScopeUNet
from vdm.types import Conditioning

SMALL = Sizes()
THREE_LEVELS = Sizes((32, 64, 96), 2, (0, 1), 8)
VARIANTS = {
    "two levels": SMALL,
    "three levels, two blocks": THREE_LEVELS,
    "attention at every level": Sizes((64, 32), 1, (0, 1), 32),
    "attention in the middle alone": Sizes((32, 32), 1, (), 32),
}


def pair(sizes: Sizes, dtype: torch.dtype) -> tuple[ModelScopeUNet, UNet3DConditionModel]:
    theirs = diffusers_unet(sizes)
    ours = our_unet(sizes)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("sizes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_outputs_equal_those_of_diffusers(sizes: Sizes, batch_size: int) -> None:
    inputs = Inputs.random(batch_size, 4)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
            ours, theirs = pair(sizes, dtype)
            given = inputs.to(dtype)
            torch.testing.assert_close(given.of_ours(ours), given.of_diffusers(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("batch_size", "num_frames"), [(1, 3), (3, 3), (3, 1)])
def test_gradients_equal_those_of_diffusers(batch_size: int, num_frames: int) -> None:
    ours, theirs = pair(THREE_LEVELS, torch.float64)
    inputs = Inputs.random(batch_size, num_frames).to(torch.float64)
    for output in (inputs.of_ours(ours), inputs.of_diffusers(theirs)):
        (output**2).sum().backward()

    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name].grad, rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (5, 16)], ids=str)
def test_sizes_that_halve_unevenly_equal_diffusers(size: tuple[int, int]) -> None:
    ours, theirs = pair(THREE_LEVELS, torch.float64)
    inputs = Inputs.random(1, 2, size).to(torch.float64)

    torch.testing.assert_close(inputs.of_ours(ours), inputs.of_diffusers(theirs), rtol=1e-10, atol=1e-10)


def test_images_alone_equal_clips_of_one_frame_in_diffusers() -> None:
    ours, theirs = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 3).to(torch.float64)
    images = inputs.of_ours(ours, num_images=3)

    for frame in range(3):
        single = Inputs(inputs.xt[:, :, frame : frame + 1], inputs.timesteps, inputs.tokens)
        expected = single.of_diffusers(theirs)
        torch.testing.assert_close(images[:, :, frame : frame + 1], expected, rtol=1e-10, atol=1e-10)


def test_images_behind_a_clip_change_nothing_in_it() -> None:
    ours, _ = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 5).to(torch.float64)
    together = inputs.of_ours(ours, num_images=2)

    def part(frames: slice) -> Inputs:
        return Inputs(inputs.xt[:, :, frames], inputs.timesteps, inputs.tokens)

    torch.testing.assert_close(together[:, :, :3], part(slice(0, 3)).of_ours(ours))
    torch.testing.assert_close(together[:, :, 4:], part(slice(4, 5)).of_ours(ours))


def test_texts_may_differ_from_frame_to_frame() -> None:
    ours, _ = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 3).to(torch.float64)
    by_frame = Inputs(inputs.xt, inputs.timesteps, inputs.tokens[:, None].expand(-1, 3, -1, -1))
    torch.testing.assert_close(by_frame.of_ours(ours), inputs.of_ours(ours))


def test_padding_of_texts_changes_nothing() -> None:
    ours, _ = pair(SMALL, torch.float64)
    inputs = Inputs.random(2, 3).to(torch.float64)
    longer = torch.cat([inputs.tokens, torch.full((2, 4, 24), 9.0, dtype=torch.float64)], dim=1)
    mask = torch.arange(11).expand(2, 11) < 7
    padded = ours(inputs.xt, inputs.timesteps, Conditioning(text=longer, text_mask=mask))

    torch.testing.assert_close(padded, inputs.of_ours(ours))


def test_layers_over_time_begin_by_adding_nothing_and_drop_out_as_in_diffusers() -> None:
    ours = our_unet(SMALL).train()
    theirs = diffusers_unet(SMALL).train()
    convs = ours.down_blocks[0].temp_convs[0]

    assert not any(parameter.any() for parameter in convs.conv4[-1].parameters())
    rates = {m.p for m in theirs.modules() if isinstance(m, torch.nn.Dropout)} - {0.0}
    assert {m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)} == rates == {0.1}


def test_the_published_size_has_the_keys_and_shapes_of_diffusers() -> None:
    with torch.device("meta"):
        ours, theirs = ModelScopeUNet(), UNet3DConditionModel()

    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }
    assert sum(parameter.numel() for parameter in ours.parameters()) == 1_411_233_860
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 1_411_233_860


def test_every_weight_lies_in_a_block_or_at_the_ends() -> None:
    network = our_unet(THREE_LEVELS)
    blocks = [block for _, block in network.blocks_by_level()]
    inside = [parameter for block in blocks for parameter in block.parameters()]
    outside = {n.partition(".")[0] for n, p in network.named_parameters() if not any(p is q for q in inside)}

    assert len(inside) == len({id(parameter) for parameter in inside})
    assert outside == {"conv_in", "time_embedding", "down_blocks", "up_blocks", "conv_norm_out", "conv_out"}
    assert {level for level, _ in network.blocks_by_level()} == {0, 1, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (32, 48)}, r"channels must be one multiple of 32 a level, but is \[32, 48\]"),
        ({"head_channels": 24}, r"head_channels must divide each width, but 24 does not divide 32"),
        ({"attention_levels": (2,)}, r"attention_levels must lie between 0 and 1, but has \[2\]"),
        ({"num_blocks": 0}, r"num_blocks must be at least 1, but is 0"),
        ({"text_channels": 0}, r"text_channels must be at least 1: choose a text encoder, such as .*"),
        ({"temporal_dropout": 1.0}, r"temporal_dropout must lie between 0 and 1, but is 1.0"),
        ({"image_conditioned": True}, r"is conditioned on text alone: model.conditioner must have no .*"),
        ({"vector_channels": 25}, r"is conditioned on text alone: model.conditioner must have no .*"),
    ],
    ids=str,
)
def test_mistaken_sizes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        our_unet(SMALL, **options)


def test_missing_texts_and_those_of_another_width_are_named() -> None:
    inputs = Inputs.random(1, 2)
    with pytest.raises(ValueError, match=r"^text_channels=24: there is no text$"):
        our_unet(SMALL)(inputs.xt, inputs.timesteps, Conditioning())
    with pytest.raises(ValueError, match=r"^text_channels=24: tokens are 9 wide$"):
        our_unet(SMALL)(inputs.xt, inputs.timesteps, Conditioning(text=inputs.tokens[..., :9]))


@pytest.mark.parametrize("num_images", [0, 2])
def test_a_noise_level_a_frame_that_is_the_same_for_all_is_one_a_clip(num_images: int) -> None:
    ours, inputs = pair(SMALL, torch.float64)[0], Inputs.random(2, 4).to(torch.float64)
    per_frame = replace(inputs, timesteps=inputs.timesteps[:, None].expand(-1, 4))

    torch.testing.assert_close(per_frame.of_ours(ours, num_images), inputs.of_ours(ours, num_images))


def test_each_frame_is_told_its_own_noise_level() -> None:
    """Images beside each other are clips of one frame, each with its own level."""
    ours, inputs = pair(SMALL, torch.float64)[0], Inputs.random(2, 3).to(torch.float64)
    levels = torch.tensor([[3.0, 412.0, 999.0], [0.0, 700.0, 50.0]])
    together = replace(inputs, timesteps=levels).of_ours(ours, num_images=3)

    for frame in range(3):
        only = slice(frame, frame + 1)
        part = replace(inputs, xt=inputs.xt[:, :, only], timesteps=levels[:, frame])
        torch.testing.assert_close(together[:, :, only], part.of_ours(ours))
