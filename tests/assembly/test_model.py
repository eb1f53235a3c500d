"""Sampling with a whole model: conditions, guidance, observations."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import sampling_noise, small_model
from tests.models.networks import random_input
from vdm.assembly.model import VideoDiffusionModel, step_noise
from vdm.diffusion.guidance import Extrapolation
from vdm.diffusion.noise_priors import Progressive
from vdm.diffusion.observations import (
    CleanFrames,
    Frames,
    Observation,
    ObservationMethod,
    ReconstructionGuidance,
    Replacement,
)
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM

METHODS = [None, ReconstructionGuidance(1.0), Replacement(), CleanFrames()]


@pytest.fixture(scope="module")
def model() -> VideoDiffusionModel:
    return small_model()


def test_noise_and_captions_make_a_video(model: VideoDiffusionModel) -> None:
    video = model(sampling_noise(), ["a dog", ""])

    assert (video.shape, video.dtype) == ((2, 3, 4, 8, 8), torch.uint8)
    assert len(video.unique()) > 10
    assert torch.equal(video, model(sampling_noise(), model.prompts(["a dog", ""])))


def test_number_of_frames_and_size_are_those_of_the_noise(model: VideoDiffusionModel) -> None:
    assert model(random_input("sampling", 1, 3, 1, 12, 16), [""]).shape == (1, 3, 1, 12, 16)


@pytest.mark.parametrize("changed", ["caption", "label", "image", "negative", "noise"])
def test_everything_that_is_asked_for_matters(model: VideoDiffusionModel, changed: str) -> None:
    image = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    usual = model(sampling_noise(1), model.prompts(["a dog"], [1], image))
    other = model(
        -sampling_noise(1) if changed == "noise" else sampling_noise(1),
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

    assert torch.equal(unguided(sampling_noise(), ["a", "b"], negative="c"), unguided(sampling_noise(), ["a", "b"]))


def test_guidance_of_scale_0_is_the_model_without_conditions() -> None:
    ignoring, plain = small_model(guidance__scale=0.0), small_model(guidance__scale=1.0)
    prompts = ignoring.prompts(["a dog"], [1], torch.full((1, 3, 8, 8), 200, dtype=torch.uint8))

    torch.testing.assert_close(ignoring(sampling_noise(1), prompts), plain(sampling_noise(1), [""]), rtol=0, atol=1)


def test_clips_of_a_batch_do_not_influence_each_other(model: VideoDiffusionModel) -> None:
    together = model(sampling_noise(3), ["a dog", "", "a much longer caption of a cat"])

    torch.testing.assert_close(together[:1], model(sampling_noise(1), ["a dog"]), rtol=0, atol=1)


def test_noise_and_captions_must_be_as_many(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^noise for 2 clips, but conditions for 3$"):
        model(sampling_noise(2), ["a", "b", "c"])


@pytest.mark.parametrize(("size", "named"), [((10, 8), "height"), ((8, 10), "width")])
def test_noise_of_a_wrong_size_is_refused(model: VideoDiffusionModel, size: tuple[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named} of the latents must be a multiple of 4, but is 10$"):
        model(torch.zeros(1, 3, 4, *size), [""])


def test_sampling_keeps_no_activations_for_a_backward_pass(model: VideoDiffusionModel) -> None:
    steps: list[Tensor] = []
    latents = model.sample(sampling_noise(), ["", ""], on_step=lambda step, x0: steps.append(x0))

    assert len(steps) == 3
    assert not any(tensor.requires_grad for tensor in (latents, *steps))


def test_prompts_without_labels_and_image_have_none(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(["a", "b"])

    assert prompts.conditions["label"].labels.tolist() == [-1, -1]
    assert "image" not in prompts.conditions


def test_image_of_prompts_is_its_latents(model: VideoDiffusionModel) -> None:
    prompts = model.prompts(["a"], image=torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1))

    torch.testing.assert_close(prompts.conditions["image"].values.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_first_frame_is_refused_by_a_model_that_takes_none() -> None:
    model = small_model(model__conditioner__image=False)

    with pytest.raises(ValueError, match=r"^image: the model has no such condition; it has: text, label$"):
        model.prompts(["a"], image=torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_step_noise_depends_on_clip_and_step_alone() -> None:
    like, prior = torch.zeros(3, 3, 2, 4, 4), Progressive()
    draw, alone = step_noise(prior, 5, [4, 5, 6], like), step_noise(prior, 5, [6], like[:1])

    assert torch.equal(draw(3)[2], alone(3)[0])
    draws = [draw(3)[0], draw(3)[1], draw(4)[0], step_noise(prior, 6, [4, 5, 6], like)(3)[0]]
    assert len({noise.sum().item() for noise in draws}) == 4


def test_ancestral_sampling_is_repeatable_by_default(model: VideoDiffusionModel) -> None:
    ancestral = small_model()
    ancestral.sampler, ancestral.guidance = DDPM(3), Extrapolation(1.0)

    assert torch.equal(ancestral(sampling_noise(), ["a", "b"]), ancestral(sampling_noise(), ["a", "b"]))


def _known(model: VideoDiffusionModel, num_clips: int = 2) -> tuple[Tensor, Observation]:
    """Return a video, and that its frames 0 and 2 are known."""
    video = ((random_input("video", num_clips, 3, 4, 8, 8).clamp(-1, 1) + 1) * 127.5).byte()
    frames = Frames((0, 2), 4)
    return video, Observation(frames(model.encoder.encode(video)), frames)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_known_frames_are_part_of_the_video_and_the_others_depend_on_them(
    model: VideoDiffusionModel, method: ObservationMethod | None
) -> None:
    video, known = _known(model)
    made = model(sampling_noise(), ["a dog", ""], observations=[known], method=method)
    unaware = model(sampling_noise(), ["a dog", ""])

    assert torch.equal(made[:, :, [0, 2]], video[:, :, [0, 2]])
    assert not torch.equal(made[:, :, [1, 3]], unaware[:, :, [1, 3]])


def test_reconstruction_guidance_is_the_default_method(model: VideoDiffusionModel) -> None:
    known = _known(model)[1]
    made, guided, replaced = (
        model.sample(sampling_noise(), ["a dog", ""], observations=[known], method=method)
        for method in (None, ReconstructionGuidance(), Replacement())
    )

    assert torch.equal(made, guided)
    assert not torch.allclose(made, replaced, atol=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_clips_are_told_of_their_own_observation(method: ObservationMethod | None) -> None:
    model = small_model()
    model.sampler = DDIM(2)
    known = _known(model)[1]
    together = model.sample(sampling_noise(), ["a dog", "a cat"], observations=[known], method=method)
    alone = model.sample(
        sampling_noise()[1:], ["a cat"], observations=[known.map(lambda y: y[1:])], method=method, draw_noise=None
    )

    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-3)


def test_sampling_with_observations_leaves_no_gradients() -> None:
    model = small_model()
    latents = model.sample(sampling_noise(), ["", ""], observations=[_known(model)[1]])

    assert not latents.requires_grad
    assert all(weight.grad is None for weight in model.parameters())


def test_denoised_latents_are_bounded_whatever_guidance_makes_of_them() -> None:
    model, seen = small_model(guidance__scale=50.0), []
    model.sample(
        sampling_noise(), ["a dog", ""], observations=[_known(model)[1]], on_step=lambda step, x0: seen.append(x0)
    )

    assert len(seen) == 3
    assert max(float(x0.abs().max()) for x0 in seen) == 1.0


def test_noise_and_observations_must_be_as_many(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^noise for 2 clips, but observations for 1$"):
        model(sampling_noise(2), ["a", "b"], observations=[_known(model, 1)[1]])


def test_autoguidance_leads_from_the_guide_s_prediction_with_the_same_conditions() -> None:
    """Of two denoising steps the first: the model is told of pure noise."""
    model, guide, plain = small_model(guidance__scale=3.0), small_model(), small_model(guidance__scale=1.0)
    with torch.no_grad():
        for weight in guide.network.parameters():
            weight.mul_(0.9)
    for each in (model, plain):
        each.sampler = DDIM(1)
    weak = small_model(guidance__scale=1.0)
    weak.load_state_dict(guide.state_dict())
    weak.sampler = DDIM(1)
    for each in (model, plain, weak):
        each.diffusion = replace(each.diffusion, clip_denoised=None)
    model.autoguidance_model = guide
    prompts = model.prompts(["a dog", "a cat"], [1, 2])
    away_from, strong = weak.sample(sampling_noise(), prompts), plain.sample(sampling_noise(), prompts)

    torch.testing.assert_close(model.sample(sampling_noise(), prompts), away_from + 3 * (strong - away_from))


def test_a_negative_caption_beside_a_guide_is_refused() -> None:
    model = small_model()
    model.autoguidance_model = small_model()

    with pytest.raises(ValueError, match=r"^negative=blurred: has no effect with an autoguidance model$"):
        model(sampling_noise(1), ["a dog"], negative="blurred")


def test_gradients_do_not_go_through_reconstruction_guidance(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^gradients can't go through reconstruction guidance"):
        model.sample(sampling_noise(), ["a dog", ""], observations=[_known(model)[1]], gradients=True)
