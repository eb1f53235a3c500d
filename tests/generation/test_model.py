import pytest
import torch
from torch import Tensor

from tests.generation.small_model import small_model
from tests.models.networks import random_input
from vdm.diffusion.guidance import ClassifierFree
from vdm.diffusion.samplers import DDPM
from vdm.generation.model import VideoDiffusionModel, step_noise
from vdm.types import Prompts


@pytest.fixture(scope="module")
def model() -> VideoDiffusionModel:
    return small_model()


def _noise(num_clips: int = 2) -> Tensor:
    return random_input("sampling", num_clips, 3, 4, 8, 8)


def test_noise_and_captions_make_a_video(model: VideoDiffusionModel) -> None:
    video = model(_noise(), ["a dog", ""])

    assert (video.shape, video.dtype) == ((2, 3, 4, 8, 8), torch.uint8)
    assert len(video.unique()) > 10
    assert torch.equal(video, model(_noise(), model.prompts(["a dog", ""])))


def test_number_of_frames_and_size_are_those_of_the_noise(model: VideoDiffusionModel) -> None:
    assert model(random_input("sampling", 1, 3, 1, 12, 16), [""]).shape == (1, 3, 1, 12, 16)


@pytest.mark.parametrize("changed", ["caption", "label", "image", "negative", "noise"])
def test_everything_that_is_asked_for_matters(model: VideoDiffusionModel, changed: str) -> None:
    image = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    usual = model(_noise(1), model.prompts(["a dog"], [1], image))
    other = model(
        -_noise(1) if changed == "noise" else _noise(1),
        model.prompts(
            ["a cat" if changed == "caption" else "a dog"],
            [2 if changed == "label" else 1],
            255 - image if changed == "image" else image,
        ),
        negative="a cat" if changed == "negative" else "",
    )

    assert not torch.equal(other, usual)


def test_without_guidance_the_negative_caption_is_not_read(model: VideoDiffusionModel) -> None:
    unguided = small_model(guidance__scale=1.0)

    assert torch.equal(unguided(_noise(), ["a", "b"], negative="c"), unguided(_noise(), ["a", "b"]))


def test_guidance_of_scale_0_is_the_model_without_conditions() -> None:
    ignoring, plain = small_model(guidance__scale=0.0), small_model(guidance__scale=1.0)
    prompts = ignoring.prompts(["a dog"], [1], torch.full((1, 3, 8, 8), 200, dtype=torch.uint8))

    torch.testing.assert_close(ignoring(_noise(1), prompts), plain(_noise(1), [""]), rtol=0, atol=1)


def test_clips_of_a_batch_do_not_influence_each_other(model: VideoDiffusionModel) -> None:
    together = model(_noise(3), ["a dog", "", "a much longer caption of a cat"])

    torch.testing.assert_close(together[:1], model(_noise(1), ["a dog"]), rtol=0, atol=1)


def test_noise_and_captions_must_be_as_many(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^noise for 2 clips, but conditions for 3$"):
        model(_noise(2), ["a", "b", "c"])


@pytest.mark.parametrize(("size", "named"), [((10, 8), "height"), ((8, 10), "width")])
def test_noise_of_a_wrong_size_is_refused(model: VideoDiffusionModel, size: tuple[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named} of the latents must be a multiple of 4, but is 10$"):
        model(torch.zeros(1, 3, 4, *size), [""])


def test_sampling_leaves_no_gradients(model: VideoDiffusionModel) -> None:
    model(_noise(), ["", ""])

    assert all(weight.grad is None for weight in model.parameters())


def test_prompts_without_labels_and_image_have_none(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(["a", "b"])

    assert prompts.labels.tolist() == [-1, -1]
    assert (prompts.image, prompts.has_image) == (None, None)


def test_image_of_prompts_is_its_latents(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(["a"], image=torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1))

    assert prompts.image is not None
    torch.testing.assert_close(prompts.image.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_step_noise_depends_on_clip_and_step_alone() -> None:
    like = torch.zeros(3, 3, 2, 4, 4)
    draw, alone = step_noise(5, [4, 5, 6], like), step_noise(5, [6], like[:1])

    assert torch.equal(draw(3)[2], alone(3)[0])
    draws = [draw(3)[0], draw(3)[1], draw(4)[0], step_noise(6, [4, 5, 6], like)(3)[0]]
    assert len({noise.sum().item() for noise in draws}) == 4


def test_ancestral_sampling_is_repeatable_by_default(model: VideoDiffusionModel) -> None:
    ancestral = small_model()
    ancestral.sampler, ancestral.guidance = DDPM(3), ClassifierFree(1.0)

    assert torch.equal(ancestral(_noise(), ["a", "b"]), ancestral(_noise(), ["a", "b"]))


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
                Prompts(images.captions[k::2], images.labels[k::2]),
            )
            for k in range(2)
        ]
    )

    torch.testing.assert_close(joint, (4 * of_clips + of_images.sum(0)) / 6, rtol=1e-4, atol=1e-5)
