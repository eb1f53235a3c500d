"""Long and extended videos of a model whose causal autoencoder compresses time."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import CONFIG, small_model
from tests.models.wan import save_autoencoder
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.observations import Frames, Observation
from vdm.generation.frame_blocks import Block, BlockSize, plan_blocks
from vdm.generation.generate import generate
from vdm.generation.tasks import extension
from vdm.randomness import normal
from vdm.types import ClipSize

SIZE = ClipSize(num_frames=5, height=16, width=16)
LONG = ClipSize(num_frames=13, height=16, width=16)
FILM = torch.randint(0, 256, (3, 5, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoDiffusionModel:
    folder = save_autoencoder(tmp_path_factory.mktemp("wan"))
    encoder = {"_target_": "vdm.models.diffusers_autoencoders.WanAutoencoder", "name_or_path": str(folder)}
    diffusion = {**CONFIG["diffusion"], "clip_denoised": None}
    return small_model(encoder=encoder, diffusion=diffusion, sampler__num_steps=2).requires_grad_(False)


def noise_of(block: int, clip: int = 0, frames: int = 2) -> Tensor:
    purpose = f"block {block}, sampling noise" if block else "sampling noise"
    return normal(0, purpose, [clip], (4, frames, 4, 4))


def test_blocks_follow_from_pixels_of_the_block_before(model: VideoDiffusionModel) -> None:
    """By hand: each block of five frames is told its first frame, encoded as a clip of its own, and is decoded."""
    prompts = model.prompts(["a dog"])
    blocks = plan_blocks(13, BlockSize(5, 1))
    expected = model(noise_of(0), prompts)
    for number in (1, 2):
        first = model.encoder.encode(expected[:, :, -1:])
        told = model.conditioner.with_first_latents(prompts, first[:, :, 0], model.encoder)
        made = model(noise_of(number), told, observations=[Observation(first, Frames((0,), 2))])
        expected = torch.cat([expected, made[:, :, 1:]], dim=2)

    videos = generate(model, prompts, LONG, blocks=blocks)
    assert [(block.start, block.stop, len(block.known)) for block in blocks] == [(0, 5, 0), (4, 9, 1), (8, 13, 1)]
    torch.testing.assert_close(videos, expected, rtol=0, atol=1)
    assert videos.float().std(dim=2).min() > 0


def test_known_frames_of_a_block_are_the_first_latent_frames_of_its_clip(model: VideoDiffusionModel) -> None:
    """Five known frames of nine are two latent frames of three, encoded as the beginning of the block."""
    seen: list[Any] = []
    blocks = plan_blocks(13, BlockSize(9, 5))
    sample = model.sample

    def spied(noise: Tensor, prompts: Any, negative: Any, draw: Any, on_step: Any, known: Any, method: Any) -> Tensor:
        seen.append((noise, known))
        return sample(noise, prompts, negative, draw, on_step, known, method)

    model.sample = spied
    try:
        videos = generate(model, model.prompts(["a dog"]), LONG, blocks=blocks)
    finally:
        del model.sample
    (first, nothing), (second, (known,)) = seen
    assert nothing == []
    assert first.shape == second.shape == (1, 4, 3, 4, 4)
    assert known.operator == Frames((0, 1), 3)
    torch.testing.assert_close(known.y, model.encoder.encode(videos[:, :, 4:9]))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_extended_videos_begin_with_the_given_pixels_whatever_the_batch_size(
    model: VideoDiffusionModel, batch_size: int
) -> None:
    known = extension(model, FILM, 13)
    blocks = plan_blocks(13, BlockSize(9, 5), known.indices)
    prompts = model.prompts(["a dog", "a cat", "a dog"])
    videos = generate(model, prompts, LONG, known=known, blocks=blocks, batch_size=batch_size)

    assert torch.equal(videos[:, :, :5], FILM.expand(3, -1, -1, -1, -1))
    at_once = generate(model, prompts, LONG, known=known, blocks=blocks)
    torch.testing.assert_close(videos, at_once, rtol=0, atol=1)
    assert not torch.equal(videos[0], videos[2]), "two videos of the same prompt"


def test_short_videos_are_decoded_samples(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(["a dog"])

    assert torch.equal(generate(model, prompts, SIZE), model(noise_of(0), prompts))
    assert generate(model, prompts, ClipSize(1, 32, 32)).shape == (1, 3, 1, 32, 32)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (plan_blocks(13, BlockSize(6, 1)), "block_frames=6: the autoencoder takes 4k + 1 frames: 5 or 9"),
        (plan_blocks(17, BlockSize(9, 3)), "overlap=3: the autoencoder takes 4k + 1 frames: 1 or 5"),
        ([Block(0, 13, (0, 4, 8, 12, 1), ())], "blocks: a causal autoencoder knows only the first frames of a block"),
    ],
)
def test_blocks_that_are_no_clips_are_refused(model: VideoDiffusionModel, blocks: list[Block], message: str) -> None:
    size = replace(LONG, num_frames=blocks[-1].stop)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        generate(model, model.prompts(["a dog"]), size, blocks=blocks)


def test_videos_that_are_no_clips_are_refused(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^num_frames=16: the autoencoder takes 4k \+ 1 frames: 13 or 17$"):
        generate(model, model.prompts(["a dog"]), ClipSize(16, 16, 16))
    with pytest.raises(ValueError, match=r"^width=18: the autoencoder needs multiples of 4$"):
        generate(model, model.prompts(["a dog"]), ClipSize(13, 16, 18))


def test_latents_are_those_of_a_clip_in_one_block(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(["a dog", "a cat"])
    latents = generate(model, prompts, SIZE, output="latents")
    assert latents.shape == (2, 4, 2, 4, 4)
    assert torch.equal(model.encoder.decode(latents), generate(model, prompts, SIZE))
    with pytest.raises(ValueError, match=r"^output=latents: videos in blocks of a causal autoencoder have latents"):
        generate(model, prompts, LONG, blocks=plan_blocks(13, BlockSize(5, 1)), output="latents")
