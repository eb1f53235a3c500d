"""The objective of diffusion models, with every way in which frames share noise levels."""

import pytest
import torch

from tests.assembly.small_model import small_model
from tests.models.networks import random_input
from vdm.objectives.base import Losses
from vdm.objectives.batch_randomness import BatchRandomness, HeldOutRandomness, TrainingRandomness
from vdm.objectives.denoising import Denoising
from vdm.objectives.latents import LatentBatch

PREFIX = {
    "_target_": "vdm.diffusion.frame_levels.KnownFramesClean",
    "frames": {"_target_": "vdm.known_frames.FirstFrames", "min_frames": 2, "max_frames": 2},
}
INDEPENDENT = {"_target_": "vdm.diffusion.frame_levels.IndependentFrames"}


@pytest.mark.parametrize("frame_levels", [PREFIX, INDEPENDENT, {**PREFIX, "others": INDEPENDENT}], ids=str)
@pytest.mark.parametrize(
    "randomness", [TrainingRandomness(0, [3, 8], global_batch_size=2), HeldOutRandomness(["a", "b"])], ids=str
)
@pytest.mark.parametrize("num_images", [0, 1])
def test_loss_is_that_of_the_drawn_levels_over_the_frames_that_count(
    frame_levels: dict[str, object], randomness: BatchRandomness, num_images: int
) -> None:
    model = small_model(diffusion__frame_levels=frame_levels)
    x0, shape = random_input("x0", 2, 3, 4, 8, 8), (3, 4, 8, 8)
    prompts = model.prompts(["a dog", ""], [0, -1])
    images = model.prompts(["b", "c"], [1, 2]) if num_images else None
    losses = Denoising()(model, LatentBatch(x0, prompts, images), randomness)
    noise = randomness.noise(model.diffusion.noise_prior, shape, num_images)
    times = randomness.times(model.diffusion, shape, num_images)

    assert times.t.shape == (2, 4)
    expected = model.denoising_loss(x0, noise, times.t, prompts, images, times.counted)
    torch.testing.assert_close(losses.per_clip, expected)
    share = torch.ones(2, 4) if times.counted is None else times.counted.float()
    torch.testing.assert_close(losses.t, (times.t * share).sum(1) / share.sum(1))
    assert losses.per_clip.isfinite().all()


def test_a_further_figure_does_not_take_the_place_of_the_loss() -> None:
    with pytest.raises(ValueError, match=r"^scalars: 'loss' is the name under which the loss itself is logged"):
        Losses(torch.ones(1), torch.ones(1), {"loss": torch.zeros(1)})
