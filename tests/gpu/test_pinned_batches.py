"""Batches reach the GPU from page-locked memory, unchanged, by every way in which they are loaded."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.gpu.devices import on
from tests.training.runs import TINY, configuration, train
from tests.training.test_strategies import curve
from vdm.training.training_run import build_training
from vdm.types import ClipBatch

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def moving(batch: ClipBatch) -> dict[str, Tensor]:
    """Return the tensors of a batch that kernels read."""
    assert batch.images is not None
    named = {"video": batch.video, "labels": batch.labels, "fps": batch.fps}
    return named | {"pixels of images": batch.images.pixels, "labels of images": batch.images.labels}


def load(run: Path, shards: Path, device: str, num_workers: int) -> tuple[list[ClipBatch], list[ClipBatch]]:
    """Return the first batches of a run, as loaded and as training gets them."""
    options = ("data.num_images_per_clip=1", f"data.num_workers={num_workers}", *on(device))
    training = build_training(configuration(shards, *options), run)
    training.data.trainer = training.trainer
    loader = training.data.train_dataloader()
    loaded = list(islice(loader, 3))
    loader.close()
    place = torch.device(device, 0)
    return loaded, [training.module.transfer_batch_to_device(batch, place, 0) for batch in loaded]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_pinned_and_arrive_unchanged(tmp_path: Path, shards: Path, device: str, num_workers: int) -> None:
    loaded, moved = load(tmp_path, shards, device, num_workers)
    again, _ = load(tmp_path, shards, "cpu", num_workers=0)
    for batch, there, same in zip(loaded, moved, again, strict=True):
        assert batch.keys == there.keys == same.keys
        without_waiting = batch.to(device, non_blocking=True)
        if device == "cuda":
            torch.cuda.synchronize()
        for name, expected in moving(same).items():
            assert moving(batch)[name].is_pinned() == (device == "cuda"), name
            for copy in (moving(there)[name], moving(without_waiting)[name]):
                assert copy.device.type == device
                assert torch.equal(copy.cpu(), expected), name
        for name in ("positions", "weights"):  # Python reads them, and would wait for the device
            assert getattr(there, name).device.type == "cpu"
            assert torch.equal(getattr(there, name), getattr(same, name))


def test_training_by_command_with_loader_processes_sees_the_clips_of_training_without(
    tmp_path: Path, shards: Path, device: str
) -> None:
    options = (*on(device), "trainer.max_steps=3")
    train(tmp_path / "without", configuration(shards, *options))
    run = tmp_path / "run"
    command = [f"data.path={shards}", *TINY, *options, "data.num_workers=2", f"hydra.run.dir={run}"]
    subprocess.run([sys.executable, "-m", "vdm.cli.main", "train", *command], check=True, timeout=600)
    assert curve(run, "train/loss") == pytest.approx(curve(tmp_path / "without", "train/loss"), rel=1e-4)
    assert len(curve(run, "train/loss")) == 3
