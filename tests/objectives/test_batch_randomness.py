"""Noise of clips, and of the independent images trained on beside them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vdm import randomness
from vdm.diffusion.frame_levels import FrameLevels, IndependentFrames, KnownFramesClean, LevelPerClip
from vdm.diffusion.gaussian import GaussianDiffusion
from vdm.diffusion.loss_weights import Simple
from vdm.diffusion.noise_levels import Uniform
from vdm.diffusion.noise_priors import Independent, Mixed
from vdm.diffusion.parameterizations import V
from vdm.diffusion.schedules.cosine import Cosine
from vdm.known_frames import FirstFrames
from vdm.objectives.batch_randomness import (
    HeldOutRandomness,
    NoisePrefetcher,
    PrefetchedNoise,
    RandomnessAtTime,
    TrainingRandomness,
)

SHARED_BY_ALL_FRAMES = Mixed(alpha=1e6)


def _noise(positions: list[int], num_images: int = 2) -> Tensor:
    randomness = TrainingRandomness(0, positions, global_batch_size=8)
    return randomness.noise(SHARED_BY_ALL_FRAMES, (3, 4 + num_images, 8, 8), num_images)


def test_images_beside_a_clip_have_noise_of_their_own_whatever_its_frames_share() -> None:
    noise = _noise([5, 6])
    clips, images = noise[:, :, :4], noise[:, :, 4:]

    torch.testing.assert_close(clips, clips[:, :, :1].expand_as(clips), rtol=0, atol=1e-4)
    samples = torch.cat([clips[:, :, :1], images], dim=2).transpose(1, 2).flatten(0, 1).flatten(1)
    correlation = samples.corrcoef().fill_diagonal_(0)
    assert correlation.abs().max() < 5 / samples.shape[1] ** 0.5


def test_noise_of_images_does_not_depend_on_the_batch_either() -> None:
    assert torch.equal(_noise([5, 6, 7])[1:2], _noise([6]))


@pytest.mark.parametrize("num_images", [0, 2])
def test_noise_drawn_ahead_is_what_the_step_would_draw(num_images: int) -> None:
    ahead = NoisePrefetcher(3, SHARED_BY_ALL_FRAMES, {(8, 16, 16): (4, 2, 4, 4)}, num_images)([5, 6], (8, 16, 16))
    randomness = TrainingRandomness(3, [5, 6], global_batch_size=8)
    shape = (4, 2 + num_images, 4, 4)
    assert torch.equal(ahead, randomness.noise(SHARED_BY_ALL_FRAMES, shape, num_images))
    told = replace(randomness, prefetched_noise=PrefetchedNoise(ahead, SHARED_BY_ALL_FRAMES, num_images))
    assert told.noise(SHARED_BY_ALL_FRAMES, shape, num_images) is ahead


def test_noise_drawn_ahead_does_not_stand_for_other_noise() -> None:
    shape = (4, 3, 4, 4)
    plain = TrainingRandomness(3, [5, 6], global_batch_size=8)
    told = replace(plain, prefetched_noise=PrefetchedNoise(plain.noise(Independent(), shape), Independent()))

    for prior, wanted, num_images in (
        (SHARED_BY_ALL_FRAMES, shape, 0),
        (Independent(), (4, 2, 4, 4), 0),
        (Independent(), shape, 1),
    ):
        assert torch.equal(told.noise(prior, wanted, num_images), plain.noise(prior, wanted, num_images))
    second = replace(told, noise_purpose="second noise").noise(Independent(), shape)
    assert torch.equal(second, replace(plain, noise_purpose="second noise").noise(Independent(), shape))


KEYS = [f"clip {number}" for number in range(200)]
SHAPE = (3, 6, 8, 8)
"""Four frames and two images."""


def _diffusion(frame_levels: FrameLevels) -> GaussianDiffusion:
    return GaussianDiffusion(Cosine(), V(), Uniform(), Simple(), frame_levels=frame_levels)


def test_times_of_training_are_those_of_the_diffusion() -> None:
    diffusion = _diffusion(KnownFramesClean(FirstFrames(1, 2), others=IndependentFrames()))
    times = TrainingRandomness(1, [5, 6, 9], global_batch_size=4).times(diffusion, SHAPE, num_images=2)
    expected = diffusion.draw_times(1, torch.tensor([5, 6, 9]), 4, SHAPE, num_images=2)

    assert torch.equal(times.t, expected.t)
    assert torch.equal(times.counted, expected.counted)


def test_held_out_clips_have_uniform_times_by_their_keys() -> None:
    times = HeldOutRandomness(KEYS).times(_diffusion(LevelPerClip()), SHAPE, num_images=2)

    assert times.counted is None
    assert torch.equal(times.t, randomness.uniform(0, "validation noise level", KEYS))


def test_held_out_clips_share_levels_over_frames_as_in_training() -> None:
    independent = HeldOutRandomness(KEYS).times(_diffusion(IndependentFrames()), SHAPE, num_images=2)
    assert independent.counted is None
    assert independent.t.shape == (len(KEYS), 6)
    assert independent.t.T.corrcoef().fill_diagonal_(0).abs().max() < 4 / len(KEYS) ** 0.5

    times = HeldOutRandomness(KEYS).times(_diffusion(KnownFramesClean(FirstFrames(2, 2))), SHAPE, num_images=2)
    assert times.counted is not None
    assert torch.equal(times.counted, torch.tensor([False] * 2 + [True] * 4).expand(len(KEYS), -1))
    plain = HeldOutRandomness(KEYS).times(_diffusion(LevelPerClip()), SHAPE, num_images=2).t
    assert torch.equal(times.t, torch.where(times.counted, plain[:, None], 0))


def test_one_level_is_that_of_all_frames_but_the_clean_ones() -> None:
    plain = RandomnessAtTime(0, KEYS, t=0.3)
    assert torch.equal(plain.times(_diffusion(LevelPerClip()), SHAPE).t, torch.full((len(KEYS),), 0.3))
    assert torch.equal(plain.times(_diffusion(IndependentFrames()), SHAPE).t, torch.full((len(KEYS), 6), 0.3))
    times = plain.times(_diffusion(KnownFramesClean()), SHAPE, num_images=2)

    assert torch.equal(times.t, torch.tensor([0.0] + [0.3] * 5).expand(len(KEYS), -1))
    torch.testing.assert_close(times.of_clips, torch.full((len(KEYS),), 0.3))
