import pytest
import torch
from torch import Tensor

from tests.models.networks import random_input, randomized, small_unet
from vdm.models.space_time_unet import SpaceTimeUNet
from vdm.types import Conditioning

NOISE_LEVELS = torch.tensor([-3.0, 2.0])


def _inputs(num_frames: int = 4, size: int = 8) -> Tensor:
    return random_input("xt", 2, 3, num_frames, size, size)


CONFIGURATIONS = [
    {},
    {"channels": [8], "attention_levels": [], "temporal_levels": []},
    {"channels": [8, 16, 24], "num_blocks": 2, "attention_levels": [0, 2], "temporal_levels": [1]},
    {"patch_size": 2},
    {"channels": [16], "patch_size": 4, "attention_levels": [0]},
    {"text_channels": 6, "vector_channels": 5},
    {"image_conditioned": True, "patch_size": 2},
    {"in_channels": 3, "max_distance": 1, "dropout": 0.5},
    {"frame_embedding": True},
]


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("num_frames", [1, 5])
def test_output_has_the_shape_of_the_input(options: dict[str, object], num_frames: int) -> None:
    defaults = {"temporal_levels": [], "attention_levels": []} if "channels" in options else {}
    xt = _inputs(num_frames)

    assert small_unet(**{**defaults, **options})(xt, NOISE_LEVELS, Conditioning()).shape == xt.shape


@pytest.mark.parametrize("size", [(8, 16), (16, 8), (24, 40)])
def test_frames_need_not_be_square(size: tuple[int, int]) -> None:
    xt = random_input("xt", 2, 3, 2, *size)

    assert small_unet(patch_size=2)(xt, NOISE_LEVELS, Conditioning()).shape == xt.shape


@pytest.mark.parametrize(("size", "named"), [((10, 8), "height"), ((8, 10), "width")])
def test_other_sizes_are_refused_by_name(size: tuple[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named} of the latents must be a multiple of 4, but is 10$"):
        small_unet(patch_size=2)(random_input("xt", 2, 3, 2, *size), NOISE_LEVELS, Conditioning())


def test_network_begins_at_zero() -> None:
    network = SpaceTimeUNet([16, 32], attention_levels=[1], temporal_levels=[0, 1], head_channels=8)

    assert torch.equal(network(_inputs(), NOISE_LEVELS, Conditioning()), torch.zeros(2, 3, 4, 8, 8))


@pytest.mark.parametrize("num_images", [0, 2])
def test_gradients_reach_every_parameter(num_images: int) -> None:
    network = small_unet(
        text_channels=6, vector_channels=5, image_conditioned=True, patch_size=2, max_distance=2, frame_embedding=True
    )
    condition = Conditioning(
        text=random_input("text", 2, 7, 6),
        vector=random_input("vector", 2, 5),
        image=random_input("image", 2, 4, 6, 8, 8),
    )
    network(_inputs(6), NOISE_LEVELS, condition, num_images).square().sum().backward()

    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_what_a_network_is_told_changes_its_output() -> None:
    network = small_unet(text_channels=6, vector_channels=5, image_conditioned=True)
    xt, text, vector = _inputs(), random_input("text", 2, 7, 6), random_input("vector", 2, 5)
    image = random_input("image", 2, 4, 4, 8, 8)
    whole = Conditioning(text=text, vector=vector, image=image)
    outputs = [
        network(xt, NOISE_LEVELS, whole),
        network(xt, NOISE_LEVELS + 0.5, whole),
        network(xt, NOISE_LEVELS, Conditioning(text=-text, vector=vector, image=image)),
        network(xt, NOISE_LEVELS, Conditioning(text=text, vector=-vector, image=image)),
        network(xt, NOISE_LEVELS, Conditioning(text=text, vector=vector, image=-image)),
    ]

    for other in outputs[1:]:
        assert (other - outputs[0]).abs().max() > 1e-2


def test_no_first_frame_is_a_first_frame_of_zeros_with_an_empty_mask() -> None:
    network, xt = small_unet(image_conditioned=True), _inputs()
    absent = network(xt, NOISE_LEVELS, Conditioning())

    torch.testing.assert_close(absent, network(xt, NOISE_LEVELS, Conditioning(image=torch.zeros(2, 4, 4, 8, 8))))


def test_clips_of_a_batch_do_not_influence_each_other() -> None:
    network, xt = small_unet(), _inputs()

    torch.testing.assert_close(
        network(xt, NOISE_LEVELS, Conditioning())[1:],
        network(xt[1:], NOISE_LEVELS[1:], Conditioning()),
        rtol=1e-4,
        atol=1e-5,
    )


def _influences(network: torch.nn.Module, num_frames: int, num_images: int) -> list[list[bool]]:
    """Return for each frame of the output which frames of the input it depends on."""
    xt = _inputs(num_frames + num_images)[:1].requires_grad_()
    output = network(xt, NOISE_LEVELS[:1], Conditioning(), num_images)
    rows = []
    for frame in range(num_frames + num_images):
        (gradient,) = torch.autograd.grad(output[:, :, frame].square().sum(), xt, retain_graph=True)
        rows.append([bool(gradient[:, :, other].any()) for other in range(num_frames + num_images)])
    return rows


@pytest.mark.parametrize("temporal_levels", [[], [0, 1]])
def test_all_frames_of_a_clip_influence_each_other_and_images_only_themselves(temporal_levels: list[int]) -> None:
    yes, no = True, False

    assert _influences(small_unet(temporal_levels=temporal_levels), num_frames=3, num_images=2) == [
        [yes, yes, yes, no, no],
        [yes, yes, yes, no, no],
        [yes, yes, yes, no, no],
        [no, no, no, yes, no],
        [no, no, no, no, yes],
    ]


def test_frames_mix_nowhere_but_in_attention_over_time() -> None:
    network = small_unet()
    for block in network.modules():
        if hasattr(block, "temporal"):
            block.temporal = None

    assert _influences(network, num_frames=3, num_images=0) == [
        [row == column for column in range(3)] for row in range(3)
    ]


@pytest.mark.parametrize("frame_embedding", [False, True])
def test_images_train_as_clips_of_one_frame_beside_an_unchanged_clip(frame_embedding: bool) -> None:
    """Ho et al. 2022, section 3.1."""
    network = small_unet(text_channels=6, vector_channels=5, frame_embedding=frame_embedding)
    clip, images = _inputs(4), random_input("images", 2, 3, 3, 8, 8)
    of_clip = Conditioning(text=random_input("text", 2, 7, 6), vector=random_input("vector", 2, 5))
    text, vector = random_input("text of images", 2, 3, 7, 6), random_input("vector of images", 2, 3, 5)
    together = network(
        torch.cat([clip, images], dim=2),
        NOISE_LEVELS,
        Conditioning(
            text=torch.cat([of_clip.text[:, None].expand(-1, 4, -1, -1), text], dim=1),
            vector=torch.cat([of_clip.vector[:, None].expand(-1, 4, -1), vector], dim=1),
        ),
        3,
    )

    torch.testing.assert_close(together[:, :, :4], network(clip, NOISE_LEVELS, of_clip), rtol=1e-4, atol=1e-5)
    for image in range(3):
        alone = network(
            images[:, :, image : image + 1], NOISE_LEVELS, Conditioning(text[:, image], None, vector[:, image])
        )
        torch.testing.assert_close(together[:, :, 4 + image :][:, :, :1], alone, rtol=1e-4, atol=1e-5)


def test_video_played_backwards_under_mirrored_positions_is_the_output_backwards() -> None:
    network = small_unet()
    xt = _inputs(5)
    forwards = network(xt, NOISE_LEVELS, Conditioning())
    for name, weight in network.named_parameters():
        if name.endswith("positions.bias"):
            weight.data = weight.data.flip(1)

    torch.testing.assert_close(
        network(xt.flip(2), NOISE_LEVELS, Conditioning()).flip(2), forwards, rtol=1e-4, atol=1e-5
    )


def test_equal_frames_are_told_apart_by_their_number_where_they_know_it() -> None:
    xt = _inputs(1).expand(-1, -1, 4, -1, -1)
    options = {"temporal_levels": [], "max_distance": 1}
    blind, told = (small_unet(frame_embedding=choice, **options) for choice in (False, True))
    for network in (blind, told):
        network.middle.temporal = None
    frames = [network(xt, NOISE_LEVELS, Conditioning()).unbind(2) for network in (blind, told)]

    assert all(torch.allclose(frame, frames[0][0]) for frame in frames[0])
    assert not any(torch.allclose(frame, frames[1][0]) for frame in frames[1][1:])


def test_dropout_acts_in_training_only() -> None:
    network, xt = small_unet(dropout=0.5), _inputs()
    calm = network(xt, NOISE_LEVELS, Conditioning())

    assert torch.equal(network(xt, NOISE_LEVELS, Conditioning()), calm)
    assert not torch.allclose(network.train()(xt, NOISE_LEVELS, Conditioning()), calm)


def test_autocast_to_bfloat16_stays_close_to_fp32() -> None:
    network = randomized(SpaceTimeUNet([16, 32], attention_levels=[1], temporal_levels=[1], head_channels=8))
    xt = _inputs()
    exact = network(xt, NOISE_LEVELS, Conditioning())
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(xt, NOISE_LEVELS, Conditioning())

    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": []}, r"channels must be one width >= 1 a level, but is \[\]"),
        ({"channels": [8, 0]}, r"channels must be one width >= 1 a level, but is \[8, 0\]"),
        ({"attention_levels": [2]}, r"attention_levels must lie between 0 and 1 \(one level a width\), but has \[2\]"),
        ({"temporal_levels": [-1]}, r"temporal_levels must lie between 0 and 1 \(one level a width\), but has \[-1\]"),
        (
            {"head_channels": 5},
            r"head_channels must divide the width of each level with attention, but 5 does not divide 16",
        ),
        (
            {"head_channels": 0},
            r"head_channels must divide the width of each level with attention, but 0 does not divide 16",
        ),
        ({"num_blocks": 0}, r"num_blocks must be at least 1, but is 0"),
        ({"patch_size": 0}, r"patch_size must be at least 1, but is 0"),
        ({"max_distance": 0}, r"max_distance must be at least 1, but is 0"),
    ],
    ids=str,
)
def test_mistaken_choices_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        small_unet(**options)


def test_network_outputs_as_many_channels_as_asked() -> None:
    assert small_unet(out_channels=6, patch_size=2)(_inputs(), NOISE_LEVELS, Conditioning()).shape[1] == 6
    with pytest.raises(ValueError, match=r"^out_channels must be at least 1, but is 0$"):
        small_unet(out_channels=0)


@pytest.mark.parametrize("frame_embedding", [False, True])
def test_a_noise_level_a_frame_that_is_the_same_for_all_is_one_a_clip(frame_embedding: bool) -> None:
    network = small_unet(frame_embedding=frame_embedding, vector_channels=5)
    condition = Conditioning(vector=random_input("vector", 2, 5))

    torch.testing.assert_close(
        network(_inputs(4), NOISE_LEVELS[:, None].expand(-1, 4), condition),
        network(_inputs(4), NOISE_LEVELS, condition),
    )


def test_each_frame_is_told_its_own_noise_level() -> None:
    """Images beside each other are clips of one frame, each with its own level."""
    network = small_unet()
    levels = torch.tensor([[-3.0, 2.0, 0.5], [1.0, 0.0, -2.0]])
    together = network(_inputs(3), levels, Conditioning(), num_images=3)

    for frame in range(3):
        alone = network(_inputs(3)[:, :, frame : frame + 1], levels[:, frame], Conditioning())
        torch.testing.assert_close(together[:, :, frame : frame + 1], alone)
