import pytest
import torch
from torch import Tensor

from tests.generation.small_model import small_model
from vdm.diffusion.samplers import DDIM, DDPM
from vdm.generation.generate import ClipSize, generate
from vdm.generation.model import VideoDiffusionModel

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


def test_every_step_of_every_batch_is_reported() -> None:
    model, steps = small_model(), []
    generate(model, model.prompts(CAPTIONS), SIZE, batch_size=3, on_step=lambda: steps.append(None))

    assert len(steps) == 2 * model.sampler.num_steps


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
