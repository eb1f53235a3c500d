"""Our space-time transformer against diffusers' Wan transformer with the same weights."""

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel

from tests.models.dit.peers import Inputs, Sizes, diffusers_transformer, our_transformer
from tests.models.networks import randomized
from vdm.models.attention import zeroed
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.types import Conditioning

SMALL = Sizes()
IMAGE_TO_VIDEO = Sizes(
    num_text_tokens=512, image_conditioned=True, image_channels=6, image_token_channels=20, in_channels=3
)
FIRST_AND_LAST = replace(IMAGE_TO_VIDEO, num_image_tokens=10)
VARIANTS = {
    "two heads": SMALL,
    "one head of a width that 6 does not divide": Sizes(3, 1, 16, 24, 2, 8),
    "four heads": Sizes(1, 4, 6, 96, 4, 24, 7),
    "image to video": IMAGE_TO_VIDEO,
    "first and last frame": FIRST_AND_LAST,
}


def pair(sizes: Sizes, dtype: torch.dtype) -> tuple[SpaceTimeTransformer, WanTransformer3DModel]:
    theirs = diffusers_transformer(sizes)
    ours = our_transformer(sizes)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("sizes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_outputs_equal_those_of_diffusers(sizes: Sizes, batch_size: int) -> None:
    inputs = Inputs.random(sizes, batch_size, 3)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
            ours, theirs = pair(sizes, dtype)
            expected = inputs.of_diffusers(theirs, sizes.num_text_tokens)
            torch.testing.assert_close(inputs.of_ours(ours), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("sizes", "batch_size"), [(SMALL, 3), (SMALL, 1), (FIRST_AND_LAST, 3)], ids=str)
def test_gradients_equal_those_of_diffusers(sizes: Sizes, batch_size: int) -> None:
    inputs = Inputs.random(sizes, batch_size, 3)
    ours, theirs = pair(sizes, torch.float64)
    for output in (inputs.of_ours(ours), inputs.of_diffusers(theirs, sizes.num_text_tokens)):
        (output**2).mean().backward()

    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name].grad, rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("size", [(2, 2), (2, 14), (10, 6)], ids=str)
@pytest.mark.parametrize("num_frames", [1, 5])
def test_odd_numbers_of_tokens_equal_diffusers(size: tuple[int, int], num_frames: int) -> None:
    inputs = Inputs.random(SMALL, 1, num_frames, size)
    with torch.no_grad():
        ours, theirs = pair(SMALL, torch.float64)
        expected = inputs.of_diffusers(theirs, SMALL.num_text_tokens)
    torch.testing.assert_close(inputs.of_ours(ours), expected, rtol=1e-10, atol=1e-10)


def test_a_noise_level_a_frame_equals_one_a_token_in_diffusers() -> None:
    """As in Wan 2.2's TI2V-5B, where the tokens of clean first frames are told timestep 0."""
    levels = torch.tensor([[0.0, 700.0, 700.0], [3.0, 412.0, 999.0]])
    inputs = replace(Inputs.random(SMALL, 2, 3), timesteps=levels)
    with torch.no_grad():
        ours, theirs = pair(SMALL, torch.float64)
        expected = inputs.of_diffusers(theirs, SMALL.num_text_tokens)
    torch.testing.assert_close(inputs.of_ours(ours), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # by diffusers
def test_in_bfloat16_modulation_stays_in_fp32_as_in_diffusers() -> None:
    inputs = Inputs.random(SMALL, 2, 3)
    ours, theirs = pair(SMALL, torch.float32)
    with torch.no_grad():
        exact = inputs.of_ours(ours)
        with torch.autocast("cpu", torch.bfloat16):
            our_error = (inputs.of_ours(ours).float() - exact).abs().mean()
            their_error = (inputs.of_diffusers(theirs, SMALL.num_text_tokens).float() - exact).abs().mean()
    assert our_error < 1.1 * their_error


def test_images_alone_equal_clips_of_one_frame_in_diffusers() -> None:
    inputs = Inputs.random(SMALL, 2, 3)
    with torch.no_grad():
        ours, theirs = pair(SMALL, torch.float64)
        images = inputs.of_ours(ours, num_images=3)
        for frame in range(3):
            single = replace(inputs, xt=inputs.xt[:, :, frame : frame + 1])
            expected = single.of_diffusers(theirs, SMALL.num_text_tokens)
            torch.testing.assert_close(images[:, :, frame : frame + 1], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sizes", [SMALL, IMAGE_TO_VIDEO], ids=["text", "image"])
def test_images_behind_a_clip_change_nothing_in_it(sizes: Sizes) -> None:
    ours, _ = pair(sizes, torch.float64)
    inputs = Inputs.random(sizes, 2, 5)
    together = inputs.of_ours(ours, num_images=2)

    def part(frames: slice) -> Inputs:
        image = None if inputs.image is None else inputs.image[:, :, frames]
        return replace(inputs, xt=inputs.xt[:, :, frames], image=image)

    torch.testing.assert_close(together[:, :, :3], part(slice(0, 3)).of_ours(ours))
    alone = replace(part(slice(4, 5)), image_tokens=None)
    torch.testing.assert_close(together[:, :, 4:], alone.of_ours(ours, num_images=1))


def test_texts_may_differ_from_frame_to_frame() -> None:
    for options in ({}, {"num_text_tokens": 0}):
        network = randomized(our_transformer(SMALL, **options)).double()
        inputs = Inputs.random(SMALL, 2, 3)
        text, mask = inputs.text.double(), inputs.mask
        by_frame = Conditioning(text=text[:, None].expand(-1, 3, -1, -1), text_mask=mask[:, None].expand(-1, 3, -1))
        torch.testing.assert_close(
            network(inputs.xt.double(), inputs.timesteps, by_frame), inputs.of_ours(network), rtol=1e-10, atol=1e-10
        )


def test_padding_of_texts_is_masked_in_networks_without_a_number_of_tokens() -> None:
    network = randomized(our_transformer(SMALL, num_text_tokens=0)).double()
    inputs = Inputs.random(SMALL, 3, 2)
    together = inputs.of_ours(network)
    for clip, length in enumerate(inputs.lengths):
        one = slice(clip, clip + 1)
        alone = Inputs(inputs.xt[one], inputs.timesteps[one], inputs.text[one, :length], (length,))
        torch.testing.assert_close(together[one], alone.of_ours(network))


def test_classes_and_pooled_texts_are_conditions_where_asked_for() -> None:
    network = randomized(our_transformer(SMALL, vector_channels=30, vector_conditioned=True)).double()
    inputs = Inputs.random(SMALL, 2, 3)
    vectors = torch.randn(2, 30, dtype=torch.float64)

    def output(vector: torch.Tensor) -> torch.Tensor:
        condition = Conditioning(text=inputs.text.double(), text_mask=inputs.mask, vector=vector)
        return network(inputs.xt.double(), inputs.timesteps, condition)

    assert not torch.allclose(output(vectors), output(vectors + 1))
    torch.testing.assert_close(output(vectors[:, None].expand(-1, 3, -1)), output(vectors))


@pytest.mark.parametrize("num_images", [0, 2])
def test_frames_of_a_clip_are_told_their_number_where_asked_for(num_images: int) -> None:
    network = randomized(our_transformer(SMALL, frame_embedding=True)).double()
    inputs = Inputs.random(SMALL, 2, 3)
    condition = Conditioning(text=inputs.text.double(), text_mask=inputs.mask)
    told = network(inputs.xt.double(), inputs.timesteps, condition, num_images)
    zeroed(network.embed_frame.layers[-1])
    untold = network(inputs.xt.double(), inputs.timesteps, condition, num_images)

    # Neither images nor a clip of one frame have a place in time.
    assert torch.allclose(told, untold) == (num_images == 2)


def test_a_network_without_text_is_built_and_runs() -> None:
    network = our_transformer(SMALL, text_channels=0, vector_channels=8, vector_conditioned=True)
    output = network(torch.randn(2, 4, 3, 6, 10), torch.zeros(2), Conditioning(vector=torch.randn(2, 8)))
    assert output.shape == (2, 4, 3, 6, 10)
    assert not any("attn2" in name or "text" in name for name in network.state_dict())


def test_the_first_prediction_of_a_network_to_be_trained_is_zero() -> None:
    inputs = Inputs.random(SMALL, 2, 3)
    assert not inputs.of_ours(our_transformer(SMALL)).any()


def test_every_weight_lies_in_a_block_or_at_the_ends() -> None:
    network = our_transformer(FIRST_AND_LAST)
    inside = [parameter for _, block in network.blocks_by_level() for parameter in block.parameters()]
    outside = {n.partition(".")[0] for n, p in network.named_parameters() if not any(p is q for q in inside)}

    assert len(inside) == len({id(parameter) for parameter in inside})
    assert outside == {"patch_embedding", "condition_embedder", "scale_shift_table", "proj_out"}
    assert {level for level, _ in network.blocks_by_level()} == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, r"num_heads must be at least 1, but is 0"),
        ({"head_channels": 9}, r"head_channels must be an even number of at least 6, but is 9"),
        ({"head_channels": 4}, r"head_channels must be an even number of at least 6, but is 4"),
        ({"vector_channels": 25}, r"vector_conditioned=false: model.conditioner must have no classes or crops"),
    ],
    ids=str,
)
def test_mistaken_sizes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        our_transformer(SMALL, **options)


def test_missing_long_and_wide_texts_and_undivided_sizes_are_named() -> None:
    network, xt, c_noise = our_transformer(SMALL), torch.zeros(1, 4, 1, 4, 4), torch.zeros(1)
    for condition, message in (
        (Conditioning(), "text_channels=24: there is no text"),
        (Conditioning(text=torch.zeros(1, 3, 9)), "text_channels=24: tokens are 9 wide"),
        (Conditioning(text=torch.zeros(1, 10, 24)), "num_text_tokens=9: a text has 10 tokens"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            network(xt, c_noise, condition)
    with pytest.raises(ValueError, match=r"^width of the latents must be a multiple of 2, but is 5$"):
        network(torch.zeros(1, 4, 1, 4, 5), c_noise, Conditioning(text=torch.zeros(1, 3, 24)))
