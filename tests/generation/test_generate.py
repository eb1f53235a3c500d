import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import small_model
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.probability_flow import ProbabilityFlow
from vdm.generation.frame_blocks import BlockSize, plan_blocks
from vdm.generation.generate import generate
from vdm.generation.tasks import extension, interpolation, super_resolution
from vdm.models.autoencoder import PixelAutoencoder
from vdm.types import ClipSize

SIZE = ClipSize(num_frames=3, height=8, width=12)
CAPTIONS = ["a dog", "", "a red cat", "a dog"]


@pytest.fixture(scope="module", params=[DDIM(2), DDIM(2, eta=1.0), DDPM(2)], ids=str)
def model(request: pytest.FixtureRequest) -> VideoDiffusionModel:
    made = small_model()
    made.sampler = request.param
    return made


def _videos(model: VideoDiffusionModel, seed: int = 0, batch_size: int = 8) -> Tensor:
    image = torch.arange(3 * 96).reshape(1, 3, 8, 12).to(torch.uint8).expand(4, -1, -1, -1)
    return generate(model, model.prompts(CAPTIONS, [0, 1, 2, 0], image), SIZE, seed, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_videos_do_not_depend_on_the_batch_size(model: VideoDiffusionModel, batch_size: int) -> None:
    torch.testing.assert_close(_videos(model, batch_size=batch_size), _videos(model), rtol=0, atol=1)


def test_one_seed_gives_the_same_videos_again_and_another_gives_others(model: VideoDiffusionModel) -> None:
    assert torch.equal(_videos(model), _videos(model))
    assert not torch.equal(_videos(model, seed=1), _videos(model))


def test_two_videos_of_the_same_prompt_differ(model: VideoDiffusionModel) -> None:
    videos = _videos(model)

    assert videos.shape == (4, 3, 3, 8, 12)
    assert not torch.equal(videos[0], videos[3])


def test_videos_are_handed_out_batch_by_batch(model: VideoDiffusionModel) -> None:
    batches: list[torch.Tensor] = []
    videos = generate(model, model.prompts(CAPTIONS), SIZE, batch_size=3, on_batch=batches.append)

    assert [len(batch) for batch in batches] == [3, 1]
    assert torch.equal(torch.cat(batches), videos)


LONG = replace(SIZE, num_frames=7)
BLOCKS = plan_blocks(7, BlockSize(4, 2))
FILM = torch.arange(3 * 3 * 8 * 12).reshape(3, 3, 8, 12).to(torch.uint8)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_long_videos_do_not_depend_on_the_batch_size(model: VideoDiffusionModel, batch_size: int) -> None:
    prompts = model.prompts(CAPTIONS)
    at_once = generate(model, prompts, LONG, blocks=BLOCKS)

    assert at_once.shape == (4, 3, 7, 8, 12)
    torch.testing.assert_close(
        generate(model, prompts, LONG, batch_size=batch_size, blocks=BLOCKS), at_once, rtol=0, atol=1
    )


def test_long_video_begins_with_the_short_one_of_the_same_seed(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(CAPTIONS[:1])
    short, long = generate(model, prompts, replace(SIZE, num_frames=4)), generate(model, prompts, LONG, blocks=BLOCKS)

    assert torch.equal(long[:, :, :4], short)
    assert len({frame.float().mean().item() for frame in long[0].unbind(1)}) == 7, "each frame has noise of its own"


def test_bar_counts_every_step_of_every_block_of_every_batch(capfd: pytest.CaptureFixture[str]) -> None:
    model = small_model()
    generate(model, model.prompts(CAPTIONS), LONG, batch_size=3, blocks=BLOCKS)
    assert capfd.readouterr().err == ""
    generate(model, model.prompts(CAPTIONS), LONG, batch_size=3, blocks=BLOCKS, progress=True)
    batches, blocks, steps = 2, 3, 3
    assert f" {batches * blocks * steps}/{batches * blocks * steps} [" in capfd.readouterr().err


def test_bar_has_no_end_if_the_sampler_can_not_tell_its_steps(capfd: pytest.CaptureFixture[str]) -> None:
    model = small_model()
    model.sampler = ProbabilityFlow()
    generate(model, model.prompts(CAPTIONS[:1]), SIZE, progress=True)
    assert re.search(r"sampling: [1-9]\d*step \[", capfd.readouterr().err)


def test_extended_video_begins_with_what_is_given(model: VideoDiffusionModel) -> None:
    known = extension(model, FILM, 7)
    videos = generate(
        model, model.prompts(CAPTIONS), LONG, known=known, blocks=plan_blocks(7, BlockSize(4, 2), known.indices)
    )

    assert torch.equal(videos[:, :, :3], FILM.expand(4, -1, -1, -1, -1))
    assert not torch.equal(videos[0], videos[3]), "two videos of the same prompt"


def test_interpolated_video_has_what_is_given_as_every_third_frame(model: VideoDiffusionModel) -> None:
    known = interpolation(model, FILM, 3, 7)
    videos = generate(model, model.prompts(CAPTIONS), LONG, known=known)

    assert torch.equal(videos[:, :, ::3], FILM.expand(4, -1, -1, -1, -1))


def test_enlarged_video_is_told_every_frame_in_small_in_all_blocks() -> None:
    model, latents = small_model(diffusion__clip_denoised=None), []
    small = torch.full((3, 7, 4, 6), 128, dtype=torch.uint8)
    small[:, 5:] = 200
    known = super_resolution(model, small, 7, 8, 12)
    model.encoder.decode = lambda x: latents.append(x) or PixelAutoencoder().decode(x)
    generate(model, model.prompts(CAPTIONS[:2]), LONG, known=known, blocks=BLOCKS)

    pooled = torch.nn.functional.avg_pool3d(latents[-1], (1, 2, 2))
    expected = PixelAutoencoder().encode(small[None]).expand(2, -1, -1, -1, -1)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)


def test_a_model_that_takes_a_first_frame_is_told_that_of_each_block() -> None:
    """As latents, which are not decoded and encoded again in between: that would round and bound them."""
    model, seen, latents = small_model(), [], []
    conditioner = model.conditioner
    model.conditioner.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    model.encoder.decode = lambda x: latents.append(x) or PixelAutoencoder().decode(x)
    image = torch.full((1, 3, 8, 12), 9, dtype=torch.uint8)
    generate(model, model.prompts(CAPTIONS[:1], image=image), LONG, blocks=BLOCKS)
    told = [first.values for prompts in seen if (first := prompts.conditions["image"]).present.all()]

    assert "image" in conditioner.takes
    assert len(told) == len(BLOCKS)
    (made,) = latents
    expected = [
        PixelAutoencoder().encode(image[:, :, None])[:, :, 0],
        *(made[:, :, block.start] for block in BLOCKS[1:]),
    ]
    for given, frame in zip(told, expected, strict=True):
        assert torch.equal(given, frame)


def test_negative_caption_reaches_the_model() -> None:
    model = small_model()
    prompts = model.prompts(["a dog"])

    assert not torch.equal(generate(model, prompts, SIZE, negative="a cat"), generate(model, prompts, SIZE))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (ClipSize(3, 10, 8), r"height=10: the network needs latents of a multiple of 4, not 10"),
        (ClipSize(3, 8, 6), r"width=6: the network needs latents of a multiple of 4, not 6"),
        (ClipSize(3, 0, 8), r"height=0: the network needs latents of a multiple of 4, not 0"),
        (ClipSize(0, 8, 8), r"num_frames=0: must be at least 1"),
    ],
)
def test_sizes_that_the_network_can_t_make_are_refused(size: ClipSize, message: str) -> None:
    model = small_model()

    with pytest.raises(ValueError, match=f"^{message}$"):
        generate(model, model.prompts(["a"]), size)


def test_empty_batches_are_refused() -> None:
    model = small_model()

    with pytest.raises(ValueError, match=r"^batch_size=0: must be at least 1$"):
        generate(model, model.prompts(["a"]), SIZE, batch_size=0)
