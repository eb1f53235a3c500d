"""Noise of clips, and of the independent images trained on beside them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vdm.diffusion.noise_priors import Mixed
from vdm.objectives.draws import NoiseAhead, TrainingDraws

SHARED_BY_ALL_FRAMES = Mixed(alpha=1e6)


def _noise(positions: list[int], num_images: int = 2) -> Tensor:
    draws = TrainingDraws(0, positions, global_batch_size=8)
    return draws.noise(SHARED_BY_ALL_FRAMES, (3, 4 + num_images, 8, 8), num_images)


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
    ahead = NoiseAhead(3, SHARED_BY_ALL_FRAMES, {(8, 16, 16): (4, 2, 4, 4)}, num_images)([5, 6], (8, 16, 16))
    draws = TrainingDraws(3, [5, 6], global_batch_size=8)
    shape = (4, 2 + num_images, 4, 4)
    assert torch.equal(ahead, draws.noise(SHARED_BY_ALL_FRAMES, shape, num_images))
    assert replace(draws, noise_ahead=ahead).noise(SHARED_BY_ALL_FRAMES, shape, num_images) is ahead
