"""Which checkpoints are kept, and what becomes of a run that can't be saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

from tests.training.runs import configuration, train
from tests.training.test_bad_steps import spoiled
from vdm.checkpoints import snapshot as snapshots
from vdm.checkpoints.folder import verify_folder
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.training.callbacks import samples
from vdm.training.callbacks.saving import Retention
from vdm.training.training_run import build_training

SAMPLING = "callbacks.samples={_target_: vdm.training.callbacks.samples.SampleVideos, every_steps: 1, num_videos: 1}"


def steps_of(run: Path) -> list[int]:
    return [step_of(folder) for folder in checkpoints_of(run)]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (Retention(last=2), {50, 60}),
        (Retention(last=1, every_steps=20), {20, 40, 60}),
        (Retention(last=1, best=2), {10, 40, 60}),
        (Retention(last=1, every_steps=30, best=1), {30, 40, 60}),
    ],
)
def test_each_rule_keeps_its_own(rules: Retention, kept: set[int]) -> None:
    losses = {10: 0.3, 20: 0.5, 30: 0.4, 40: 0.1, 70: 0.0}  # of the last there is no checkpoint yet
    assert rules.kept([10, 20, 30, 40, 50, 60], losses) == kept


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_the_best(number: float) -> None:
    assert Retention(last=1, best=1).kept([1, 2, 3], {1: number, 2: 0.5}) == {2, 3}


@pytest.mark.parametrize(("name", "value"), [("last", 0), ("every_steps", 0), ("best", -1)])
def test_impossible_rules_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        Retention(**{name: value})


def test_best_checkpoint_is_saved_when_it_is_measured_and_kept_over_a_resume(tmp_path: Path, shards: Path) -> None:
    best = ("save.keep.best=1", "save.keep.last=1", "validate.every_steps=1", "optimizer.lr=0.03")
    config = configuration(shards, *best, "trainer.max_steps=4")
    training = train(tmp_path, {**config, "trainer": {**config["trainer"], "max_steps": 2}})
    first_loss = training.module.scalars["val/loss"]
    assert first_loss > 0
    train(tmp_path, config, resume=True)
    written = json.loads((tmp_path / "checkpoints" / "metric.json").read_text())
    losses = {int(step): loss for step, loss in written.items()}
    steps = {step_of(folder) for folder in checkpoints_of(tmp_path)}
    assert steps == {min(losses, key=lambda step: losses[step]), 4}


class Measure(Callback):
    """Puts given losses in the place of those found in validation."""

    def __init__(self, losses: dict[int, float]) -> None:
        self.losses = losses

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.scalars["val/loss"] = self.losses[trainer.global_step]


def test_loss_that_is_not_finite_is_not_the_best_so_far(tmp_path: Path, shards: Path) -> None:
    best = ("save.keep.best=1", "save.keep.last=1", "validate.every_steps=1", "trainer.max_steps=4")
    config = configuration(shards, *best)
    train(tmp_path, {**config, "trainer": {**config["trainer"], "max_steps": 1}})
    (tmp_path / "checkpoints" / "metric.json").write_text('{"1": NaN}')
    training = build_training(config, tmp_path)
    losses = Measure({2: 0.5, 3: float("nan"), 4: 0.6})
    training.trainer.callbacks.insert(0, losses)
    training.fit(tmp_path)
    assert steps_of(tmp_path) == [2, 4]
    assert json.loads((tmp_path / "checkpoints" / "metric.json").read_text()) == {"2": 0.5}
    training = build_training(configuration(shards, *best), tmp_path / "nan")
    losses = Measure({1: float("nan"), 2: 0.5, 3: float("-inf"), 4: 0.6})
    training.trainer.callbacks.insert(0, losses)
    training.fit()
    assert steps_of(tmp_path / "nan") == [2, 4]


def test_checkpoints_that_sampling_completes_are_counted_too(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_step = (SAMPLING, "save.every_steps=1", "save.keep.last=1", "save.keep.best=1", "validate.every_steps=1")
    config = configuration(shards, *each_step, "trainer.max_steps=5")
    train(tmp_path / "whole", config)
    losses = json.loads((tmp_path / "whole" / "checkpoints" / "metric.json").read_text())
    best = min(losses, key=lambda step: losses[step])
    assert steps_of(tmp_path / "whole") == sorted({int(best), 5})

    drawn = []

    def die_in_the_fourth(*args: Any) -> Any:
        drawn.append(args)
        if len(drawn) == 4:
            raise RuntimeError("out of memory")
        return generate(*args)

    generate = samples.generate
    monkeypatch.setattr(samples, "generate", die_in_the_fourth)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path / "parts", config)
    assert steps_of(tmp_path / "parts")[-2:] == [3, 4]
    assert len(steps_of(tmp_path / "parts")) <= 3  # the best, and one that was the latest until sampling began
    monkeypatch.undo()
    train(tmp_path / "parts", config, resume=True)
    assert steps_of(tmp_path / "parts") == steps_of(tmp_path / "whole")


def test_checkpoints_that_going_back_completes_are_counted_too(tmp_path: Path, shards: Path) -> None:
    options = ("bad_steps.policy=rollback", "bad_steps.max_in_a_row=1", "save.every_steps=2", "save.keep.last=1")
    config = configuration(shards, *options, spoiled([9, 21, *range(24, 40)]), "trainer.max_steps=9")
    with pytest.raises(ValueError, match="2 steps in a row were bad"):  # each time right after a save
        train(tmp_path, config)
    assert steps_of(tmp_path) == [4]


def test_damaged_newest_checkpoint_is_passed_over_loudly_in_resuming(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configuration(shards, "save.every_steps=1", "trainer.max_steps=2")
    train(tmp_path, config)
    newest = latest_checkpoint(tmp_path)
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    config["trainer"]["max_steps"] = 3
    training = train(tmp_path, config, resume=True)
    assert training.trainer.global_step == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(weights) in warnings[0]
    assert "The run goes on from" in warnings[1]  # and what was passed over is set aside


def test_full_disk_ends_the_run_in_one_line_and_leaves_the_last_checkpoint_whole(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = snapshots.write_pieces, []

    def fill_up(path: Path, pieces: Any) -> None:
        written.append(path)
        if "step=00000003" in str(path):
            raise OSError(28, "No space left on device")
        write(path, pieces)

    monkeypatch.setattr(snapshots, "write_pieces", fill_up)
    with pytest.raises(ValueError, match=r"step=00000003: can't be saved: No space left on device; [^\n]*$"):
        train(tmp_path, configuration(shards, "save.every_steps=1", "trainer.max_steps=10"))
    assert not list((tmp_path / "checkpoints").glob(".*"))
    folder = latest_checkpoint(tmp_path)
    assert step_of(folder) == 2
    verify_folder(folder)
    assert len({path.parent for path in written}) <= 4  # training did not go on for long


def test_weights_of_another_model_are_refused_when_resuming(tmp_path: Path, shards: Path) -> None:
    train(tmp_path / "one", configuration(shards, "trainer.max_steps=1"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    other = configuration(shards, "trainer.max_steps=2", "model.network.channels=[16,32]")
    with pytest.raises(ValueError, match=r"weights of another model: it differs in model\."):
        train(tmp_path / "two", other, resume=True)
