"""Metrics of sampled videos during training."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import TINY, configuration, train
from tests.training.stages import ADAMW
from tests.training.zygote import Zygote
from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.checkpoints.run_config import RunConfig
from vdm.config import ConfigError
from vdm.training.training_run import build_training

NAME = "static_clips[num_frames=4]"
METRICS = (
    "metric=[static_clips,motion_difference]",
    "metric.static_clips.num_frames=4",
    "metric.motion_difference.num_frames=4",
    "callbacks.measure.num_videos=5",
    "callbacks.measure.every_steps=2",
)
"""Five videos in blocks of four: of two processes, one makes four and the other one."""
DIFFERENCE = "motion_difference[num_frames=4]"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run of five steps, measured after the second, the fourth and the last."""
    run = tmp_path_factory.mktemp("measured") / "run"
    train(run, configuration(shards, *ADAMW, *METRICS, "trainer.max_steps=5"))
    return run


def results_of(run: Path) -> dict[int, dict[str, Any]]:
    """Return the metrics by step."""
    files = sorted((run / "evaluation").glob("step=*/results.json"))
    return {int(file.parent.name.partition("=")[2]): json.loads(file.read_text())["metrics"] for file in files}


def logged(run: Path, name: str) -> dict[int, float]:
    """Return a scalar of ``metrics.csv`` by step."""
    (file,) = run.glob("**/metrics.csv")
    with file.open() as opened:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(opened) if row.get(name)}


def weights_of(run: Path) -> dict[str, bytes]:
    """Return the files of weights in the latest checkpoint, by name."""
    folder = max(checkpoints_of(run), key=step_of)
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")}
    assert found
    return found


def test_measuring_does_not_change_what_is_trained(measured: Path, tmp_path: Path, shards: Path) -> None:
    train(tmp_path / "run", configuration(shards, *ADAMW, "trainer.max_steps=5"))
    assert not (tmp_path / "run" / "evaluation").exists()
    assert weights_of(measured) == weights_of(tmp_path / "run")


def test_figures_are_written_with_their_protocols_and_logged(measured: Path) -> None:
    results = results_of(measured)
    assert list(results) == [2, 4, 5]
    sampling = {key: RunConfig.read(measured).parts[key] for key in ("sampler", "guidance")}
    assert sampling["sampler"]["_target_"].startswith("vdm.diffusion.samplers.")
    for metrics in results.values():
        assert metrics.keys() == {NAME, DIFFERENCE}
        assert [(one["num_videos"], one["num_reference"]) for one in metrics.values()] == [(5, None), (5, 5)]
        assert metrics[NAME]["protocol"]["num_frames"] == 4
        assert metrics[NAME]["protocol"]["sampling"] == {**sampling, "guide": None, "ema": True, "seed": 0}
    for name in (NAME, DIFFERENCE):
        found = logged(measured, f"val/{name}")
        assert found == pytest.approx({step: metrics[name]["value"] for step, metrics in results.items()})
    assert len({metrics[DIFFERENCE]["value"] for metrics in results.values()}) == 3


def test_best_checkpoint_by_a_metric_is_kept(tmp_path: Path, shards: Path) -> None:
    best = ("save.keep.best=1", "save.keep.last=1", f"save.keep.metric='val/{DIFFERENCE}'", "optimizer.lr=0.03")
    train(tmp_path, configuration(shards, *METRICS, *best, "callbacks.measure.every_steps=1"))
    values = {step: metrics[DIFFERENCE]["value"] for step, metrics in results_of(tmp_path).items()}
    written = json.loads((tmp_path / "checkpoints" / "metric.json").read_text())
    lowest = min(values, key=lambda step: values[step])
    assert written[str(lowest)] == values[lowest]
    assert {step_of(folder) for folder in checkpoints_of(tmp_path)} == {lowest, 4}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("metric=[static_clips]",), r"^metric\.static_clips: a video of the model has 4 frames; 16 take 16; "),
        (
            ("metric=[static_clips]", "+metric.static_clips.frames=4"),
            r"^metric\.static_clips\.frames: unknown key",
        ),
    ],
)
def test_mistake_in_a_metric_ends_training_before_the_first_step(
    tmp_path: Path, shards: Path, overrides: tuple[str, ...], message: str
) -> None:
    training = build_training(configuration(shards, *overrides), tmp_path)
    with pytest.raises((ConfigError, ValueError), match=message):
        training.fit()
    assert training.trainer.global_step == 0


@pytest.mark.parametrize("is_lost", [False, True], ids=["after", "while"])
def test_run_that_ended_after_or_while_it_measured_finds_the_same_figures(
    measured: Path, tmp_path: Path, shards: Path, is_lost: bool
) -> None:
    train(tmp_path, configuration(shards, *ADAMW, *METRICS, "trainer.max_steps=2"))
    if is_lost:
        shutil.rmtree(tmp_path / "evaluation" / "step=00000002")
    train(tmp_path, configuration(shards, *ADAMW, *METRICS, "trainer.max_steps=5", f"resume={tmp_path}"), resume=True)
    assert results_of(tmp_path) == results_of(measured)
    assert weights_of(tmp_path) == weights_of(measured)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_find_what_one_finds(
    measured: Path, tmp_path: Path, shards: Path, zygote: Zygote, strategy: str
) -> None:
    two = [
        "data.micro_batch_size=4",
        f"strategy={strategy}",
        "strategy.process_group_backend=gloo",
        "trainer.devices=2",
    ]
    argv = ["train", f"data.path={shards}", *TINY, *ADAMW, *METRICS, *two, "trainer.max_steps=5"]
    pids = zygote.start_ranks([*argv, f"hydra.run.dir={tmp_path / 'run'}"], 2, tmp_path / "out.log")
    assert zygote.wait(pids, timeout=120) == [0, 0], (tmp_path / "out.0.log").read_text()
    expected, found = results_of(measured), results_of(tmp_path / "run")
    assert found.keys() == expected.keys()
    for name in (NAME, DIFFERENCE):
        one, other = expected[2][name], found[2][name]
        # a gradient that is summed in parts may move a few pixels by a level; a missing video changes far more
        assert other["value"] == pytest.approx(one["value"], rel=1e-5)
        assert other["interval"] == pytest.approx(one["interval"], rel=1e-5)
        assert (other["num_videos"], other["num_reference"]) == (one["num_videos"], one["num_reference"])


def test_a_metric_that_nothing_logs_is_told_once(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep = ("save.keep.best=1", "save.keep.metric=val/los", "validate.every_steps=1", "trainer.max_steps=2")
    train(tmp_path, configuration(shards, *keep))
    told = [message for message in caplog.messages if message.startswith("save.keep.metric=val/los:")]
    assert len(told) == 1
    assert "val/loss" in told[0]
