"""Workers draw the noise of the coming step: the same as the step itself would have drawn."""

from pathlib import Path

import torch

from tests.training.runs import configuration, train
from tests.training.test_strategies import content, curve
from vdm.training.training_run import build_training


def test_workers_draw_noise_and_the_run_is_the_same(tmp_path: Path, shards: Path) -> None:
    images = "data.num_images_per_clip=1"
    for run, workers in (("alone", 0), ("ahead", 1)):
        options = (images, f"data.num_workers={workers}", "trainer.max_steps=2")
        train(tmp_path / run, configuration(shards, *options, without=("data.num_workers", "trainer.max_steps")))
    assert curve(tmp_path / "ahead", "train/loss") == curve(tmp_path / "alone", "train/loss")
    found, expected = content(tmp_path / "ahead"), content(tmp_path / "alone")
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    config = configuration(shards, images, "data.num_workers=1", without=("data.num_workers",))
    data = build_training(config, tmp_path).data
    noise = next(iter(data.train_dataloader())).noise
    assert noise is not None
    assert noise.shape[2] == data.clip_shape[0] + 1
