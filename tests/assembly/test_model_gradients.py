"""Gradients through the sampling of a whole model, and probabilities of its steps."""

import pytest
import torch
from torch import Tensor

from tests.assembly.small_model import sampling_noise, small_model
from tests.models.networks import random_input
from vdm.assembly.model import VideoDiffusionModel
from vdm.diffusion.samplers.base import Transition
from vdm.diffusion.samplers.ddpm import DDPM


def _precise_model() -> VideoDiffusionModel:
    """Return a model in float64 with a stochastic sampler, nothing in it bounded."""
    model = small_model(diffusion__clip_denoised=None).double()
    model.sampler = DDPM(3, gamma=0.5)
    return model


def test_samples_are_differentiable_in_the_weights() -> None:
    """Against finite differences, through noise, guidance and all steps."""
    model = _precise_model()
    noise, goal = sampling_noise(1).double(), random_input("goal", 1, 3, 4, 8, 8).double()

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
    model.sample(sampling_noise().double(), ["a dog", ""], on_transition=stored.append)
    assert not stored[0].mean.requires_grad

    def log_probabilities() -> Tensor:
        found: list[Tensor] = []

        def follow(transition: Transition) -> Tensor:
            latents = stored[len(found)].latents
            found.append(transition.log_probability(latents))
            return latents

        model.sample(sampling_noise().double(), ["a dog", ""], on_transition=follow, gradients=True)
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
    model.sample(sampling_noise().double(), ["a dog", ""], on_transition=stored.append)

    def follow(transition: Transition) -> Tensor:
        latents = stored[len(found)].latents
        found.append(transition.log_probability(latents).sum())
        if at_once:
            found[-1].backward(retain_graph=True)
        return latents

    model.sample(sampling_noise().double(), ["a dog", ""], on_transition=follow, gradients=True)
    if not at_once:
        torch.stack(found).sum().backward()
    return [weight.grad for weight in model.parameters()]


def test_backward_at_each_step_gives_the_gradient_of_all() -> None:
    gradients = [_gradients_of_replay(at_once) for at_once in (False, True)]

    assert any(gradient is not None for gradient in gradients[0])
    torch.testing.assert_close(*gradients)
