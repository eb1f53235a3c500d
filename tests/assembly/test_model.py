from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import small_model
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
from vdm.diffusion.samplers.base import Transition
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.prompts import Prompts


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


def test_sampling_keeps_no_activations_for_a_backward_pass(model: VideoDiffusionModel) -> None:
    steps: list[Tensor] = []
    latents = model.sample(_noise(), ["", ""], on_step=lambda step, x0: steps.append(x0))

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

    assert torch.equal(ancestral(_noise(), ["a", "b"]), ancestral(_noise(), ["a", "b"]))


METHODS = [None, ReconstructionGuidance(1.0), Replacement(), CleanFrames()]


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
    made = model(_noise(), ["a dog", ""], observations=[known], method=method)
    unaware = model(_noise(), ["a dog", ""])

    assert torch.equal(made[:, :, [0, 2]], video[:, :, [0, 2]])
    assert not torch.equal(made[:, :, [1, 3]], unaware[:, :, [1, 3]])


def test_reconstruction_guidance_is_the_default_method(model: VideoDiffusionModel) -> None:
    known = _known(model)[1]
    made, guided, replaced = (
        model.sample(_noise(), ["a dog", ""], observations=[known], method=method)
        for method in (None, ReconstructionGuidance(), Replacement())
    )

    assert torch.equal(made, guided)
    assert not torch.allclose(made, replaced, atol=1e-3)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_clips_are_told_of_their_own_observation(method: ObservationMethod | None) -> None:
    model = small_model()
    model.sampler = DDIM(2)
    known = _known(model)[1]
    together = model.sample(_noise(), ["a dog", "a cat"], observations=[known], method=method)
    alone = model.sample(
        _noise()[1:], ["a cat"], observations=[known.map(lambda y: y[1:])], method=method, draw_noise=None
    )

    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-3)


def test_sampling_with_observations_leaves_no_gradients() -> None:
    model = small_model()
    latents = model.sample(_noise(), ["", ""], observations=[_known(model)[1]])

    assert not latents.requires_grad
    assert all(weight.grad is None for weight in model.parameters())


def test_denoised_latents_are_bounded_whatever_guidance_makes_of_them() -> None:
    model, seen = small_model(guidance__scale=50.0), []
    model.sample(_noise(), ["a dog", ""], observations=[_known(model)[1]], on_step=lambda step, x0: seen.append(x0))

    assert len(seen) == 3
    assert max(float(x0.abs().max()) for x0 in seen) == 1.0


def test_noise_and_observations_must_be_as_many(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^noise for 2 clips, but observations for 1$"):
        model(_noise(2), ["a", "b"], observations=[_known(model, 1)[1]])


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
    away_from, strong = weak.sample(_noise(), prompts), plain.sample(_noise(), prompts)

    torch.testing.assert_close(model.sample(_noise(), prompts), away_from + 3 * (strong - away_from))


def test_a_negative_caption_beside_a_guide_is_refused() -> None:
    model = small_model()
    model.autoguidance_model = small_model()

    with pytest.raises(ValueError, match=r"^negative=blurred: has no effect with an autoguidance model$"):
        model(_noise(1), ["a dog"], negative="blurred")


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


def _precise_model() -> VideoDiffusionModel:
    """Return a model in float64 with a stochastic sampler, nothing in it bounded."""
    model = small_model(diffusion__clip_denoised=None).double()
    model.sampler = DDPM(3, gamma=0.5)
    return model


def test_samples_are_differentiable_in_the_weights() -> None:
    """Against finite differences, through noise, guidance and all steps."""
    model = _precise_model()
    noise, goal = _noise(1).double(), random_input("goal", 1, 3, 4, 8, 8).double()

    def reward(gradients: bool) -> Tensor:
        return (model.sample(noise, ["a dog"], gradients=gradients) * goal).sum()

    reward(gradients=True).backward()
    for weight in (model.network.exit.weight, model.network.entrance.weight):
        assert weight.grad is not None
        place = tuple(int(index) for index in torch.unravel_index(weight.grad.abs().argmax(), weight.shape))
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                weight[place] += step
            ends.append(float(reward(gradients=False)))
        with torch.no_grad():
            weight[place] += 1e-6
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, float(weight.grad[place]), rtol=1e-5, atol=1e-8)


def test_a_run_gone_through_again_has_a_ratio_of_1_and_the_gradient_of_its_log_probability() -> None:
    model, stored = _precise_model(), list[Transition]()
    model.sample(_noise().double(), ["a dog", ""], on_transition=stored.append)
    assert not stored[0].mean.requires_grad

    def log_probabilities() -> Tensor:
        found: list[Tensor] = []

        def follow(transition: Transition) -> Tensor:
            latents = stored[len(found)].latents
            found.append(transition.log_probability(latents))
            return latents

        model.sample(_noise().double(), ["a dog", ""], on_transition=follow, gradients=True)
        return torch.stack(found)

    found = log_probabilities()
    ratios = torch.exp(found - torch.stack([transition.log_probability() for transition in stored]))
    assert torch.equal(ratios, torch.ones_like(ratios))

    ratios.sum().backward()
    weight = model.network.exit.weight
    assert weight.grad is not None
    place = tuple(int(index) for index in torch.unravel_index(weight.grad.abs().argmax(), weight.shape))
    with torch.no_grad():
        weight[place] += 1e-6
    difference = float((log_probabilities() - found).sum().detach())
    assert difference / 1e-6 == pytest.approx(float(weight.grad[place]), rel=1e-3)


def _gradients_of_replay(at_once: bool) -> list[Tensor | None]:
    """Sample, then replay the steps, with a backward pass at each or one for all in the end."""
    model, stored, found = _precise_model(), list[Transition](), list[Tensor]()
    model.sample(_noise().double(), ["a dog", ""], on_transition=stored.append)

    def follow(transition: Transition) -> Tensor:
        latents = stored[len(found)].latents
        found.append(transition.log_probability(latents).sum())
        if at_once:
            found[-1].backward(retain_graph=True)
        return latents

    model.sample(_noise().double(), ["a dog", ""], on_transition=follow, gradients=True)
    if not at_once:
        torch.stack(found).sum().backward()
    return [weight.grad for weight in model.parameters()]


def test_backward_at_each_step_gives_the_gradient_of_all() -> None:
    gradients = [_gradients_of_replay(at_once) for at_once in (False, True)]

    assert any(gradient is not None for gradient in gradients[0])
    torch.testing.assert_close(*gradients)


def test_gradients_do_not_go_through_reconstruction_guidance(model: VideoDiffusionModel) -> None:
    with pytest.raises(ValueError, match=r"^gradients can't go through reconstruction guidance"):
        model.sample(_noise(), ["a dog", ""], observations=[_known(model)[1]], gradients=True)
