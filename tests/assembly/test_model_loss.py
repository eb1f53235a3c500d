"""The denoising loss of a whole model."""

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import small_model
from tests.models.networks import random_input
from vdm.assembly.model import VideoDiffusionModel
from vdm.prompts import Prompts


@pytest.fixture(scope="module")
def model() -> VideoDiffusionModel:
    return small_model()


def _loss(model: VideoDiffusionModel, x0: Tensor, prompts: Prompts, images: Prompts | None = None) -> Tensor:
    return model.denoising_loss(x0, random_input("noise", *x0.shape), torch.tensor([0.2, 0.8]), prompts, images)


def test_denoising_loss_is_that_of_the_network_s_output(model: VideoDiffusionModel) -> None:
    x0, noise, t = random_input("x0", 2, 3, 4, 8, 8), random_input("noise", 2, 3, 4, 8, 8), torch.tensor([0.2, 0.8])
    prompts = model.prompts(["a dog", ""], [0, -1])
    alpha, sigma = (level.reshape(2, 1, 1, 1, 1) for level in model.diffusion.schedule.alpha_sigma(t))
    output = model.network(
        alpha * x0 + sigma * noise, 2 * (alpha / sigma).log().flatten(), model.conditioner(prompts, 4)
    )

    torch.testing.assert_close(
        _loss(model, x0, prompts), ((output - (alpha * noise - sigma * x0)) ** 2).flatten(1).mean(1)
    )


def test_images_beside_a_clip_leave_its_share_of_the_loss_unchanged(model: VideoDiffusionModel) -> None:
    """Mean over 4 frames of the clip and 2 images; each image counts as a clip of one frame."""
    x0, noise = random_input("x0", 2, 3, 6, 8, 8), random_input("noise", 2, 3, 6, 8, 8)
    t = torch.tensor([0.2, 0.8])
    clips, images = model.prompts(["a dog", ""], [0, -1]), model.prompts(["a", "bcd", "", "e"], [1, 2, 0, -1])
    joint = model.denoising_loss(x0, noise, t, clips, images)

    of_clips = model.denoising_loss(x0[:, :, :4], noise[:, :, :4], t, clips)
    of_images = torch.stack(
        [
            model.denoising_loss(
                x0[:, :, 4 + k : 5 + k],
                noise[:, :, 4 + k : 5 + k],
                t,
                images.rows(slice(k, None, 2)),
            )
            for k in range(2)
        ]
    )

    torch.testing.assert_close(joint, (4 * of_clips + of_images.sum(0)) / 6, rtol=1e-4, atol=1e-5)


def test_loss_of_the_frames_that_count_is_that_of_clean_frames_before_them(model: VideoDiffusionModel) -> None:
    """The network sees frame 0 as it is, with a level of its own; the loss is the mean over the other three."""
    x0, noise = random_input("x0", 2, 3, 4, 8, 8), random_input("noise", 2, 3, 4, 8, 8)
    t = torch.tensor([[0.0, 0.2, 0.5, 0.7], [0.0, 0.8, 0.8, 0.8]])
    counted = torch.tensor([[False, True, True, True]] * 2)
    prompts = model.prompts(["a dog", ""], [0, -1])
    alpha, sigma = (level[:, None, :, None, None] for level in model.diffusion.schedule.alpha_sigma(t))
    xt = alpha * x0 + sigma * noise
    xt[:, :, 0] = x0[:, :, 0]
    c_noise = 2 * (alpha / sigma).log()[:, 0, :, 0, 0]
    c_noise[:, 0] = 30.0
    output = model.network(xt, c_noise, model.conditioner(prompts, 4))
    error = ((output - (alpha * noise - sigma * x0)) ** 2)[:, :, 1:]

    loss = model.denoising_loss(x0, noise, t, prompts, counted=counted)
    torch.testing.assert_close(loss, error.flatten(1).mean(1), rtol=1e-4, atol=1e-5)


def test_images_beside_a_clip_may_have_levels_of_their_own(model: VideoDiffusionModel) -> None:
    x0, noise = random_input("x0", 2, 3, 6, 8, 8), random_input("noise", 2, 3, 6, 8, 8)
    clips, images = model.prompts(["a dog", ""], [0, -1]), model.prompts(["a", "bcd", "", "e"], [1, 2, 0, -1])
    t = torch.tensor([0.2, 0.8])

    torch.testing.assert_close(
        model.denoising_loss(x0, noise, t[:, None].expand(-1, 6), clips, images),
        model.denoising_loss(x0, noise, t, clips, images),
        rtol=1e-4,
        atol=1e-5,
    )
