"""A noise level a frame: the same as each frame being a clip of its own, and as one a clip where all frames agree."""

import pytest
import torch
from torch import Tensor

from tests.diffusion.latents import random_latents
from tests.diffusion.schedules.every_schedule import EVERY_SCHEDULE
from vdm.diffusion.distances import Distance, PseudoHuber, SquaredError
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.learned_variance import LearnedVariance
from vdm.diffusion.loss_weights import VLB, ErrorOf, LossWeight, MinSNR, SigmoidWeight, Simple
from vdm.diffusion.noise_levels import Uniform
from vdm.diffusion.parameterizations import (
    EDM,
    X0,
    Eps,
    Parameterization,
    QuarterLogSigma,
    Timestep,
    V,
    Velocity,
)
from vdm.diffusion.schedules.base import NoiseSchedule
from vdm.diffusion.schedules.cosine import Cosine
from vdm.diffusion.schedules.discrete import LinearBetas
from vdm.diffusion.schedules.variance_exploding import VarianceExploding

NUM_FRAMES = 3
TIMES = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
FRAME_TIMES = torch.stack([TIMES, TIMES.flip(0), TIMES.roll(1)], dim=1)
PARAMETERIZATIONS = [Eps(), X0(), V(), V(QuarterLogSigma()), V(Timestep(LinearBetas())), Velocity(), EDM()]
WEIGHTS = [Simple(), MinSNR(), VLB(), SigmoidWeight(), *map(ErrorOf, (Eps(), X0(), V(), Velocity(), EDM()))]
COUNTED = torch.tensor([[False, True, True]] * 5)


def _latents(purpose: str, channels: int = 2) -> Tensor:
    parts = [random_latents(f"{purpose} {part}", dtype=torch.float32) for part in range(channels // 2)]
    return torch.cat(parts, dim=1)


X0_, NOISE = _latents("x0").clamp(-1, 1), _latents("noise")


def _loss(
    diffusion: GaussianDiffusion, t: Tensor, counted: Tensor | None = None, frames: slice = slice(None)
) -> Tensor:
    noised = diffusion.add_noise(X0_[:, :, frames], NOISE[:, :, frames], t, counted)
    output = _latents("output", diffusion.out_channels(2))[:, :, frames]
    return diffusion.loss(output, noised, counted)


def _of_each_frame(diffusion: GaussianDiffusion, times: Tensor) -> Tensor:
    """Return the loss of each frame as that of a clip of one frame."""
    losses = [_loss(diffusion, times[:, frame], frames=slice(frame, frame + 1)) for frame in range(times.shape[1])]
    return torch.stack(losses, dim=1)


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_a_schedule_treats_each_frame_by_itself(schedule: NoiseSchedule) -> None:
    log_snr = schedule.log_snr(FRAME_TIMES)
    for values, function in (
        (FRAME_TIMES, schedule.log_snr),
        (log_snr, schedule.time),
        (FRAME_TIMES, schedule.log_snr_slope),
        (FRAME_TIMES, lambda t: torch.stack(schedule.alpha_sigma(t), -1)),
        (FRAME_TIMES, lambda t: torch.stack(schedule.drift_diffusion(t), -1)),
    ):
        found = function(values)
        for frame in range(NUM_FRAMES):
            torch.testing.assert_close(found[:, frame], function(values[:, frame]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss_weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=str)
def test_loss_of_equal_frames_is_that_of_a_level_a_clip(
    parameterization: Parameterization, loss_weight: LossWeight
) -> None:
    diffusion = GaussianDiffusion(Cosine(), parameterization, Uniform(t_min=1e-3), loss_weight)
    noised = diffusion.add_noise(X0_, NOISE, TIMES)
    frames = diffusion.add_noise(X0_, NOISE, TIMES[:, None].expand(-1, NUM_FRAMES))

    assert torch.equal(frames.xt, noised.xt)
    c_noise = parameterization.c_noise(frames.alpha, frames.sigma)
    assert torch.equal(c_noise, parameterization.c_noise(noised.alpha, noised.sigma)[:, None].expand_as(c_noise))
    torch.testing.assert_close(
        _loss(diffusion, TIMES[:, None].expand(-1, NUM_FRAMES)), _loss(diffusion, TIMES), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=str)
def test_loss_of_equal_frames_is_that_of_a_level_a_clip_under_every_schedule(schedule: NoiseSchedule) -> None:
    diffusion = GaussianDiffusion(schedule, V(), Uniform(t_min=1e-3), MinSNR())

    torch.testing.assert_close(
        _loss(diffusion, TIMES[:, None].expand(-1, NUM_FRAMES)), _loss(diffusion, TIMES), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("distance", [SquaredError(), PseudoHuber(0.3)], ids=str)
@pytest.mark.parametrize("learned_variance", [None, LearnedVariance(100, vlb_weight=1.0)], ids=str)
@pytest.mark.parametrize("counted", [None, COUNTED, COUNTED.roll(1, 1)])
def test_loss_is_the_mean_over_the_frames_that_count(
    distance: Distance, learned_variance: LearnedVariance | None, counted: Tensor | None
) -> None:
    diffusion = GaussianDiffusion(
        Cosine(), V(), Uniform(), MinSNR(), distance=distance, learned_variance=learned_variance
    )
    of_frames = _of_each_frame(diffusion, FRAME_TIMES)
    share = torch.ones_like(of_frames) if counted is None else counted.float()

    torch.testing.assert_close(
        _loss(diffusion, FRAME_TIMES, counted), (of_frames * share).sum(1) / share.sum(1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("distance", [SquaredError(), PseudoHuber(0.3)], ids=str)
@pytest.mark.parametrize("learned_variance", [None, LearnedVariance(100, vlb_weight=1.0)], ids=str)
@pytest.mark.parametrize("times", [TIMES, FRAME_TIMES], ids=["per clip", "per frame"])
def test_loss_is_that_of_the_clip_without_the_frames_that_do_not_count(
    distance: Distance, learned_variance: LearnedVariance | None, times: Tensor
) -> None:
    diffusion = GaussianDiffusion(
        Cosine(), V(), Uniform(), MinSNR(), distance=distance, learned_variance=learned_variance
    )
    cut = _loss(diffusion, times if times.ndim == 1 else times[:, 1:], frames=slice(1, None))

    torch.testing.assert_close(_loss(diffusion, times, COUNTED), cut, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("times", [TIMES, FRAME_TIMES], ids=["per clip", "per frame"])
@pytest.mark.parametrize("distance", [SquaredError(), PseudoHuber()], ids=str)
def test_a_clip_without_frames_that_count_has_no_loss(times: Tensor, distance: Distance) -> None:
    diffusion = GaussianDiffusion(
        Cosine(), V(), Uniform(), Simple(), distance=distance, learned_variance=LearnedVariance(100)
    )
    counted = torch.tensor([[True] * NUM_FRAMES] * 4 + [[False] * NUM_FRAMES])
    loss = _loss(diffusion, times, counted)

    assert loss[4] == 0
    torch.testing.assert_close(loss[:4], _loss(diffusion, times)[:4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss_weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=str)
@pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding()], ids=str)
def test_clean_frames_are_exact_and_leave_loss_and_gradient_finite(
    schedule: NoiseSchedule, parameterization: Parameterization, loss_weight: LossWeight
) -> None:
    diffusion = GaussianDiffusion(schedule, parameterization, Uniform(t_min=1e-3), loss_weight)
    noised = diffusion.add_noise(X0_, NOISE, torch.where(COUNTED, FRAME_TIMES, 0), COUNTED)
    output = _latents("output").requires_grad_()
    loss = diffusion.loss(output, noised, COUNTED)
    loss.sum().backward()
    assert output.grad is not None

    assert torch.equal(noised.xt[:, :, 0], X0_[:, :, 0])
    assert parameterization.c_noise(noised.alpha, noised.sigma).isfinite().all()
    assert (parameterization.c_in(noised.alpha, noised.sigma)[:, :1] * X0_[:, :, 0].flatten(1)).isfinite().all()
    assert parameterization.x0(output, noised.xt, noised.alpha, noised.sigma).isfinite().all()
    assert loss.isfinite().all()
    assert output.grad.isfinite().all()
    assert not output.grad[:, :, 0].any()
    torch.testing.assert_close(loss, _of_each_frame(diffusion, FRAME_TIMES)[:, 1:].mean(1), rtol=1e-5, atol=1e-6)
