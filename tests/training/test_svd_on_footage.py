"""Tuning Stable Video Diffusion on real videos, from files to a held-out loss that falls."""

from pathlib import Path

import pytest
import torch

from data_pipelines.build import build
from data_pipelines.settings import BuildSettings, ClipOptions
from tests.footage import linked, smallest_videos
from tests.models.svd.pipelines import save_pipeline
from tests.training.test_svd import finetuning
from vdm.training.training_run import TrainingRun, build_training
from vdm.types import ClipBatch


@torch.no_grad()
def held_out_loss(training: TrainingRun) -> float:
    """Return the mean loss of all validation clips over the noise levels of training."""
    model = training.module.model.eval()
    losses = []
    for batch in training.data.val_dataloader():
        assert isinstance(batch, ClipBatch)
        x0, draws = model.encoder.encode(batch.video), batch.positions.tolist()
        prompts = model.conditioner.of_clips(batch, x0, model.encoder, seed=0, clip_ids=draws)
        noise = torch.Generator().manual_seed(0)
        for u in (torch.arange(8) + 0.5) / 8:
            t = model.diffusion.noise_levels.quantile(u.expand(len(batch)), model.diffusion.schedule)
            losses.append(model.denoising_loss(x0, torch.randn(x0.shape, generator=noise), t, prompts))
    model.train()
    return torch.cat(losses).mean().item()


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    videos = linked(folder / "videos", smallest_videos(12))
    clip = ClipOptions(num_frames=4, fps=8, height=16, width=16)
    build(BuildSettings(input=str(videos), output=folder / "shards", clip=clip, validation_fraction=0.2))
    return folder / "shards"


@pytest.mark.parametrize(("tune", "share"), [("all", 0.7), ("lora", 0.9)])
def test_tuning_lowers_the_loss_of_videos_that_were_held_out(
    tmp_path: Path, footage: Path, tune: str, share: float
) -> None:
    pretrained = save_pipeline(tmp_path / "pretrained")
    options = (f"tune={tune}", "data.global_batch_size=4", "trainer.max_steps=20", "optimizer.lr=2e-3")
    training = build_training(finetuning(footage, pretrained, *options), tmp_path / "run")
    before = held_out_loss(training)
    training.fit()

    assert held_out_loss(training) < share * before
