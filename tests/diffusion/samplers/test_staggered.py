"""Frames that run behind each other."""

import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import random_latents
from tests.diffusion.samplers.closed_forms import TWO_PEAKS
from tests.diffusion.samplers.every_sampler import EVERY
from vdm.diffusion.denoiser import Denoised, bounded
from vdm.diffusion.guidance import Extrapolation
from vdm.diffusion.observations import (
    CleanFrames,
    Frames,
    Observation,
    ObservationMethod,
    ReconstructionGuidance,
    Replacement,
)
from vdm.diffusion.samplers.base import GridPoint, GridSampler, SamplerState, Transition
from vdm.diffusion.samplers.ddim import DDIM
from vdm.diffusion.samplers.ddpm import DDPM
from vdm.diffusion.samplers.euler import Euler
from vdm.diffusion.samplers.heun import Heun
from vdm.diffusion.samplers.predictor_corrector import PredictorCorrector
from vdm.diffusion.samplers.spacing import Linspace
from vdm.diffusion.samplers.staggered import Staggered
from vdm.diffusion.schedules.variance_preserving import VariancePreserving
from vdm.diffusion.shapes import over_latents

SCHEDULE = VariancePreserving()
NUM_STEPS, NUM_FRAMES = 5, 3
ONE_CALL = [name for name in EVERY if EVERY[name](NUM_STEPS, Linspace()).calls_network_once]
NOISE = random_latents("z")


def _draw(number: int) -> Tensor:
    return random_latents(f"draw {number}")


def _mixing(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
    """A model in which frames and noise levels matter to each other."""
    x0 = TWO_PEAKS.denoise(xt, alpha, sigma).x0
    return Denoised(x0 + 0.1 * (x0 / over_latents(1 + sigma)).mean(2, keepdim=True))


def test_most_samplers_can_be_staggered() -> None:
    assert set(EVERY) - set(ONE_CALL) == {"heun", "heun-churn", "euler-churn", "predictor_corrector"}


@pytest.mark.parametrize("name", ONE_CALL)
def test_without_delay_it_is_the_sampler_itself(name: str) -> None:
    inner = EVERY[name](NUM_STEPS, Linspace())
    steps: list[list[Tensor]] = [[], []]
    transitions: list[list[Transition]] = [[], []]
    samples = [
        sampler(_mixing, NOISE, SCHEDULE, _draw, lambda _, x0, of=of: of.append(x0), told.append)
        for sampler, of, told in zip((inner, Staggered(inner, 0)), steps, transitions, strict=True)
    ]

    assert torch.equal(*samples)
    assert all(map(torch.equal, *steps))
    assert all(map(torch.equal, *([t.latents for t in told] for told in transitions)))
    assert Staggered(inner, 0).num_steps == inner.num_steps


@pytest.mark.parametrize("delay", [1, 2, 7])
@pytest.mark.parametrize("name", ONE_CALL)
def test_frames_that_do_not_depend_on_each_other_do_not_depend_on_the_delay_either(name: str, delay: int) -> None:
    inner = EVERY[name](NUM_STEPS, Linspace())

    torch.testing.assert_close(
        Staggered(inner, delay)(TWO_PEAKS.denoise, NOISE, SCHEDULE, _draw),
        inner(TWO_PEAKS.denoise, NOISE, SCHEDULE, _draw),
    )


@pytest.mark.parametrize("delay", [1, 2, NUM_STEPS, NUM_STEPS + 1])
def test_each_frame_is_that_many_steps_behind_the_one_before(delay: int) -> None:
    """From ``delay = num_steps`` on, frames before are clean and frames behind are noise: autoregression."""
    sampler, seen = Staggered(DDIM(NUM_STEPS), delay), list[tuple[Tensor, Tensor]]()

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        seen.append((alpha, sigma))
        return _mixing(xt, alpha, sigma)

    steps: list[int] = []
    sampler(denoise, NOISE, SCHEDULE, _draw, lambda step, x0: steps.append(step))
    grid = sampler.grid(SCHEDULE)

    assert steps == list(range(1, NUM_STEPS + 2 * delay + 1))
    assert len(seen) == len(steps)
    for step, (alpha, sigma) in enumerate(seen):
        points = [grid[min(max(step - delay * frame, 0), NUM_STEPS)] for frame in range(NUM_FRAMES)]
        assert torch.equal(alpha, alpha.new_tensor([[point.alpha for point in points]]).expand(5, -1))
        assert torch.equal(sigma, sigma.new_tensor([[point.sigma for point in points]]).expand(5, -1))
    if delay >= NUM_STEPS:
        assert all(len({*sigma[0].tolist()} - {0.0, grid[0].sigma}) <= 1 for _, sigma in seen)


def test_the_last_report_is_the_sample_and_num_steps_depend_on_the_frames() -> None:
    reported: list[Tensor] = []
    sampler = Staggered(DDIM(NUM_STEPS, eta=0.5), 2)
    sample = sampler(_mixing, NOISE, SCHEDULE, _draw, lambda step, x0: reported.append(x0))

    assert torch.equal(reported[-1], sample)
    assert sampler.num_steps is None


def test_transitions_are_those_of_single_frames() -> None:
    found: list[Transition] = []
    Staggered(DDPM(NUM_STEPS), 1)(_mixing, NOISE, SCHEDULE, _draw, on_transition=found.append)

    assert [transition.latents.shape[2] for transition in found] == [1] * (NUM_STEPS - 1) * NUM_FRAMES


def test_variances_are_those_of_each_frame() -> None:
    share = torch.rand(NOISE.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def denoise(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Denoised:
        return Denoised(TWO_PEAKS.denoise(xt, alpha, sigma).x0, share)

    torch.testing.assert_close(
        Staggered(DDPM(NUM_STEPS), 2)(denoise, NOISE, SCHEDULE, _draw),
        DDPM(NUM_STEPS)(denoise, NOISE, SCHEDULE, _draw),
    )


@pytest.mark.parametrize("method", [Replacement(), ReconstructionGuidance(0.5), CleanFrames()], ids=str)
@pytest.mark.parametrize(
    "guidance", [Extrapolation(2.0), Extrapolation(2.0, interval=(0.1, 5.0), rescale=0.5)], ids=str
)
def test_guidance_observations_and_bounds_work_frame_by_frame(
    method: ObservationMethod, guidance: Extrapolation
) -> None:
    y = random_latents("y")[:, :, :1].clamp(-1, 1)
    guided = guidance(_mixing, TWO_PEAKS.denoise)
    denoise = bounded(method(guided, [Observation(y, Frames((0,), NUM_FRAMES))]), 1.0)
    sample = Staggered(DDIM(NUM_STEPS), 1)(denoise, NOISE, SCHEDULE, _draw)

    torch.testing.assert_close(sample[:, :, :1], y)
    assert sample.abs().max() <= 1
    free = Staggered(DDIM(NUM_STEPS), 1)(bounded(guided, 1.0), NOISE, SCHEDULE, _draw)
    assert not torch.allclose(sample[:, :, 1:], free[:, :, 1:])


@pytest.mark.parametrize("sampler", [Heun(5), Euler(5, s_churn=1.0), PredictorCorrector(5)], ids=str)
def test_samplers_that_call_the_network_more_often_are_refused(sampler: GridSampler) -> None:
    with pytest.raises(ValueError, match=r"^sampler must call the network once a step, before it adds noise, but is"):
        Staggered(sampler)


class Twice(DDIM):
    """A user's sampler, which does not say how often it calls the network."""

    def step(self, state: SamplerState, xt: Tensor, now: GridPoint, then: GridPoint) -> tuple[Tensor, Tensor]:
        """Take the step of DDIM after a needless call."""
        state.denoise(xt, now)
        return super().step(state, xt, now, then)


def test_a_second_call_that_a_sampler_does_not_announce_is_no_silent_mistake() -> None:
    with pytest.raises(ValueError, match=r"calls the network twice a step: its calls_network_once must be False$"):
        Staggered(Twice(5))(TWO_PEAKS.denoise, NOISE, SCHEDULE, _draw)


def test_delay_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"^delay must be >= 0, but is -1$"):
        Staggered(DDIM(5), -1)
