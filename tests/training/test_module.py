import csv
import json
import os
import signal
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision.amp import MixedPrecision

from tests.training.runs import SGD, TINY, configuration, train
from tests.training.zygote import Zygote
from tests.waiting import wait_until
from vdm.checkpoints.latest import latest_checkpoint
from vdm.training.callbacks import samples
from vdm.training.training_run import build_training


def metrics_of(run: Path) -> list[dict[str, str]]:
    with (run / "logs" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_one_batch_is_overfitted(tmp_path: Path, shards: Path) -> None:
    config = configuration(
        shards, "debug=overfit", "trainer.max_steps=60", "optimizer.lr=1e-2", "callbacks.samples=null"
    )
    train(tmp_path, config)
    losses = [float(row["train/loss"]) for row in metrics_of(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]


def test_loss_curve_does_not_depend_on_micro_batches(tmp_path: Path, shards: Path) -> None:
    curves = []
    for size in (4, 1):
        train(tmp_path / str(size), configuration(shards, f"data.micro_batch_size={size}"))
        curves.append([float(row["train/loss"]) for row in metrics_of(tmp_path / str(size)) if row["train/loss"]])
    assert len(curves[0]) == 4
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_bad_clip_of_weight_0_does_not_touch_the_gradient(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards)
    training = build_training(config, tmp_path)
    training.fit()
    module = training.module
    batch = next(iter(training.data.train_dataloader()))
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0])
    gradients = []
    for value in (0, 255):
        video = batch.video.clone()
        video[1] = value
        module.zero_grad()
        changed = type(batch)(video, batch.captions, batch.labels, batch.positions, weights, batch.keys, batch.fps)
        module.training_step(changed, 0)["loss"].backward()
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_gradient_is_clipped_after_the_loss_scale_of_fp16_is_taken_out(tmp_path: Path, shards: Path) -> None:
    norms = []
    for name, plugin in (("fp32", None), ("fp16", MixedPrecision("16-mixed", "cpu"))):
        training = build_training(configuration(shards, "trainer.max_steps=1"), tmp_path / name)
        if plugin is not None:  # Lightning itself takes bf16 on CPUs, which needs no scale
            training.trainer.strategy._precision_plugin = plugin
        training.fit()
        assert training.module.optimizers().defaults["fused"]
        norms.append(training.module.grad_norm.item())
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_no_bound_of_the_gradient_is_said_by_none_and_by_zero(tmp_path: Path, shards: Path) -> None:
    moved: dict[str, float] = {}
    for limit in ("null", "0", "1e-3"):
        # With plain gradient descent the weights go as far as the clipped gradient is long.
        overrides = (*SGD, f"trainer.gradient_clip_val={limit}", "trainer.max_steps=1", "lr_schedule.warmup_steps=0")
        training = build_training(configuration(shards, *overrides, without=("lr_schedule",)), tmp_path / limit)
        before = [p.detach().clone() for p in training.module.parameters()]
        training.fit()
        pairs = zip(training.module.parameters(), before, strict=True)
        moved[limit] = float(torch.stack([(after - old).detach().norm() for after, old in pairs]).norm())
    assert moved["0"] == moved["null"] > 10 * moved["1e-3"] > 0


class GradientsThere(Callback):
    """Notes after each micro-batch whether there are gradients."""

    def __init__(self) -> None:
        self.noted: list[bool] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule, *args: object) -> None:
        self.noted.append(any(p.grad is not None for p in module.parameters()))


def test_gradients_are_let_go_once_they_are_stepped(tmp_path: Path, shards: Path) -> None:
    training = build_training(configuration(shards, "data.micro_batch_size=2", "trainer.max_steps=2"), tmp_path)
    there = GradientsThere()
    training.trainer.callbacks.append(there)  # type: ignore[attr-defined]
    training.fit()
    assert there.noted == [True, False, True, False]


def test_images_ride_along_with_clips_and_change_what_is_learned(tmp_path: Path, shards: Path) -> None:
    alone = train(tmp_path / "alone", configuration(shards))
    joint = train(tmp_path / "joint", configuration(shards, "data.num_images_per_clip=2"))
    pairs = zip(alone.module.parameters(), joint.module.parameters(), strict=True)
    assert any((first != second).any() for first, second in pairs)
    assert all(p.isfinite().all() for p in joint.module.parameters())


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.conditioner.num_classes=3", "text_encoder=none", "~text_encoder.channels"),
        ("model.conditioner.image=true",),
        (
            "model.conditioner.crop_channels=8",
            "model.conditioner.stored_size=[16,32]",
            "data.clips.shapes=[[2,8,8]]",
            "data.clips.crop=random",
            "data.num_images_per_clip=1",
        ),
        ("diffusion=ddpm", "optimizer.lr=1e-5"),
        ("diffusion=cosine_x0", "trainer.precision=bf16-mixed"),
        (
            "diffusion/frame_levels=known_frames",
            "diffusion/frame_levels@diffusion.frame_levels.others=independent",
            "diffusion/time_shift=root",
            "data.num_images_per_clip=1",
            "validate.every_steps=2",
        ),
    ],
    ids=["classes", "first frame", "crop", "eps", "x0 in bf16", "levels per frame"],
)
def test_each_kind_of_model_trains(tmp_path: Path, shards: Path, overrides: tuple[str, ...]) -> None:
    if "text_encoder=none" in overrides:
        overrides = ("model.conditioner.num_classes=3", "model.conditioner.text_encoder=null")
    training = train(tmp_path, configuration(shards, *overrides, "trainer.max_steps=2"))
    assert all(p.isfinite().all() for p in training.module.parameters())
    assert training.trainer.global_step == 2


def test_sample_videos_and_held_out_loss_come_at_their_steps(tmp_path: Path, shards: Path) -> None:
    sampling = "{_target_: vdm.training.callbacks.samples.SampleVideos, every_steps: 2, num_videos: 3}"
    train(tmp_path, configuration(shards, f"callbacks.samples={sampling}", "validate.every_steps=2"))
    for step in (2, 4):
        folder = tmp_path / "samples" / f"step={step:08d}"
        videos = {"0000.mp4", "0001.mp4", "0002.mp4"}
        assert {file.name for file in folder.iterdir()} == videos | {"grid.mp4", "grid.gif", "grid.png", "prompts.json"}
        described = json.loads((folder / "prompts.json").read_text())
        assert {one["video"] for one in described} == videos
        assert all((folder / one["reference"]).is_file() and one["caption"] for one in described)
    held_out = [int(row["step"]) for row in metrics_of(tmp_path) if row["val/loss"]]
    assert held_out == [2, 4]


def test_only_the_last_checkpoints_are_kept(tmp_path: Path, shards: Path) -> None:
    train(tmp_path, configuration(shards, "save.every_steps=1", "save.keep.last=2"))
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["step=00000003", "step=00000004"]


def test_interrupted_run_is_saved_and_goes_on(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    options = (*TINY, f"data.path={shards}", "trainer.max_steps=100000", f"hydra.run.dir={run}")
    pid = zygote.start(["train", *options], {}, log)

    def check() -> None:
        assert zygote.poll(pid) is None, log.read_text()

    wait_until((run / "logs" / "version_0" / "metrics.csv").exists, "training has not begun", check)
    os.kill(pid, signal.SIGINT)
    code, messages = zygote.wait([pid], timeout=240), log.read_text()
    assert code == [130], messages
    assert "Next: vdm train resume=" in messages
    assert "Traceback" not in messages
    step = int(latest_checkpoint(run).name.removeprefix("step="))
    goal = step + 2
    resume = ["train", f"resume={run}", f"trainer.max_steps={goal}"]
    assert zygote.wait([zygote.start(resume, {}, log)], timeout=300) == [0], log.read_text()
    assert latest_checkpoint(run).name == f"step={goal:08d}"


def test_run_initialized_from_another_has_its_averaged_weights(tmp_path: Path, shards: Path) -> None:
    first = train(tmp_path / "first", configuration(shards))
    averages = {name: average.clone() for name, average in first.module.ema.first.items()}
    second = build_training(configuration(shards, f"init_from={tmp_path / 'first'}"), tmp_path / "second")
    for name, weight in second.module.named_parameters():
        torch.testing.assert_close(weight.detach().flatten(), averages[name].flatten())


def test_step_is_saved_before_its_videos_are_sampled(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(samples, "generate", out_of_memory)
    sampling = "{_target_: vdm.training.callbacks.samples.SampleVideos, every_steps: 2}"
    with pytest.raises(torch.OutOfMemoryError):
        train(tmp_path, configuration(shards, f"callbacks.samples={sampling}", "save.every_steps=2"))
    assert latest_checkpoint(tmp_path).name == "step=00000002"
