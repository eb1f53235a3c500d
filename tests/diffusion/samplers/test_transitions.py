"""What samplers tell of the noise that they add, and how a run is gone through again."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tests.diffusion.latents import random_latents
from tests.diffusion.samplers.closed_forms import GAUSSIAN, TWO_PEAKS
from tests.diffusion.samplers.every_sampler import EVERY, IN_TIME, NEEDING_SIGNAL, ODE, STOCHASTIC
from vdm.diffusion.denoiser import Denoise, Denoised
from vdm.diffusion.samplers.base import CLEAN, OnTransition, Transition
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.spacing import Linspace
from vdm.diffusion.schedules.variance_preserving import VariancePreserving

NUM_STEPS = 5
NOISY = STOCHASTIC | IN_TIME | NEEDING_SIGNAL


def _sample(
    name: str, on_transition: OnTransition | None, draw: str = "draw", denoise: Denoise = TWO_PEAKS.denoise
) -> Tensor:
    def draw_noise(number: int) -> Tensor:
        return random_latents(f"{draw} {number}")

    sampler = EVERY[name](NUM_STEPS, Linspace())
    return sampler(denoise, random_latents("z"), VariancePreserving(), draw_noise, on_transition=on_transition)


def _transitions(name: str, denoise: Denoise = TWO_PEAKS.denoise) -> list[Transition]:
    found: list[Transition] = []
    _sample(name, found.append, denoise=denoise)
    return found


@pytest.mark.parametrize("name", NOISY)
def test_log_probability_is_that_of_the_normal_distribution(name: str) -> None:
    transitions = _transitions(name)

    assert transitions
    for transition in transitions:
        distribution = Normal(transition.mean, torch.as_tensor(transition.deviation, dtype=torch.float64))
        for latents in (transition.latents, transition.latents + 1):
            expected = distribution.log_prob(latents).flatten(1).sum(1)
            torch.testing.assert_close(transition.log_probability(latents), expected)
        assert torch.equal(transition.log_probability(), transition.log_probability(transition.latents))


@pytest.mark.parametrize("name", NOISY)
def test_every_noise_drawn_is_reported(name: str) -> None:
    """What was drawn is the mean and the deviation times the noises, in order."""
    for number, transition in enumerate(_transitions(name), start=1):
        noise = (transition.latents - transition.mean) / transition.deviation
        torch.testing.assert_close(noise, random_latents(f"draw {number}"))


@pytest.mark.parametrize("name", NOISY)
def test_watching_changes_nothing(name: str) -> None:
    assert torch.equal(_sample(name, lambda transition: None), _sample(name, None))


@pytest.mark.parametrize("name", ODE)
def test_samplers_without_noise_have_no_transitions(name: str) -> None:
    assert _transitions(name) == []


@pytest.mark.parametrize("name", [name for name in NOISY if name != "predictor_corrector"])
def test_a_run_that_goes_through_the_latents_of_another_has_its_probabilities(name: str) -> None:
    """Under the same model, whatever noise it would draw; of corrections, the noise decides the deviation."""
    stored = _transitions(name)
    again: list[Transition] = []

    def follow(transition: Transition) -> Tensor:
        again.append(transition)
        return stored[len(again) - 1].latents

    assert torch.equal(_sample(name, follow, draw="other"), _sample(name, None))
    for first, second in zip(stored, again, strict=True):
        assert torch.equal(second.mean, first.mean)
        assert torch.equal(second.log_probability(first.latents), first.log_probability())


def test_noise_levels_of_a_step_and_of_churn() -> None:
    grid = DDPM(NUM_STEPS, Linspace()).grid(VariancePreserving())

    assert [(t.now, t.then) for t in _transitions("ddpm-0")] == list(pairwise(grid[:-1]))
    assert grid[-1] == CLEAN
    churned = _transitions("euler-churn")
    assert [transition.now for transition in churned] == grid[:-1]
    assert all(transition.then.noise_to_signal > transition.now.noise_to_signal for transition in churned)


def test_learned_variances_are_those_of_the_transitions() -> None:
    share = torch.rand(random_latents("z").shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(GAUSSIAN.denoise(xt, alpha, sigma).x0, share)

    for transition in _transitions("ddpm-0", denoise):
        now, then = transition.now, transition.then
        forward = now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2
        posterior = forward * (then.sigma / now.sigma) ** 2
        variance = torch.exp(share * math.log(forward) + (1 - share) * math.log(posterior))
        torch.testing.assert_close(torch.as_tensor(transition.deviation) ** 2, variance)


def test_log_probability_is_computed_in_fp32_and_tells_the_mean_where_to_go() -> None:
    mean, latents = random_latents("mean").bfloat16(), random_latents("latents").bfloat16()
    transition = Transition(mean.clone().requires_grad_(), 0.5, latents.clone().requires_grad_(), CLEAN, CLEAN)
    probability = transition.log_probability()
    probability.sum().backward()

    assert probability.dtype == torch.float32
    assert transition.latents.grad is None
    torch.testing.assert_close(transition.mean.grad, ((latents.float() - mean.float()) / 0.25).bfloat16())


def test_what_is_returned_takes_the_place_of_the_latents() -> None:
    seen: list[Tensor] = []

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        seen.append(xt)
        return TWO_PEAKS.denoise(xt, alpha, sigma)

    def chosen(transition: Transition) -> Tensor:
        return torch.zeros_like(transition.mean)

    _sample("ddpm-0", chosen, denoise=denoise)

    assert not any(bool(xt.any()) for xt in seen[1:])
