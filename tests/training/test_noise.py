"""Noise of clips, and of the independent images trained on beside them."""

import torch
from torch import Tensor

from tests.generation.small_model import small_model
from vdm.training.ema import EMA
from vdm.training.lr_schedules import WarmupConstant
from vdm.training.module import ConditionDropout, DiffusionModule
from vdm.training.optimizers import adamw
from vdm.types import ClipBatch, ImageBatch

SHARED_BY_ALL_FRAMES = {"_target_": "vdm.diffusion.noise_priors.Mixed", "alpha": 1e6}


def _noise(positions: list[int], num_images: int = 2) -> Tensor:
    num_clips = len(positions)
    no_labels = torch.full((num_clips, num_images), -1)
    pixels = torch.zeros(num_clips, 3, num_images, 8, 8, dtype=torch.uint8)
    images = ImageBatch(pixels, (("",) * num_images,) * num_clips, no_labels)
    batch = ClipBatch(
        torch.zeros(num_clips, 3, 4, 8, 8, dtype=torch.uint8),
        ("",) * num_clips,
        no_labels[:, 0],
        torch.tensor(positions),
        torch.ones(num_clips),
        tuple(map(str, positions)),
        torch.ones(num_clips),
        images,
    )
    model = small_model(diffusion__noise_prior=SHARED_BY_ALL_FRAMES)
    module = DiffusionModule(model, adamw, WarmupConstant(1), ConditionDropout(), seed=0, ema=EMA())
    return module.draw_noise(batch, (3, 4 + num_images, 8, 8))


def test_images_beside_a_clip_have_noise_of_their_own_whatever_its_frames_share() -> None:
    noise = _noise([5, 6])
    clips, images = noise[:, :, :4], noise[:, :, 4:]

    torch.testing.assert_close(clips, clips[:, :, :1].expand_as(clips), rtol=0, atol=1e-4)
    samples = torch.cat([clips[:, :, :1], images], dim=2).transpose(1, 2).flatten(0, 1).flatten(1)
    correlation = samples.corrcoef().fill_diagonal_(0)
    assert correlation.abs().max() < 5 / samples.shape[1] ** 0.5


def test_noise_of_images_does_not_depend_on_the_batch_either() -> None:
    assert torch.equal(_noise([5, 6, 7])[1:2], _noise([6]))
