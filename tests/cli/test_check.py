"""``vdm check``: tells what a run would do, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import RunVdm
from tests.data.shard_sets import write_set
from tests.training.runs import TINY, configuration, train
from vdm.training.callbacks import measuring
from vdm.training.rehearsal import Rehearsal

SAMPLES = ("callbacks.samples.every_steps=7",)
SMALL = [*(override for override in TINY if not override.startswith(("callbacks.samples", "logger"))), *SAMPLES]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (4, 3), "validation": (2,)})


def _files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def _check(*overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vdm.cli.main", "check", *overrides]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, env=os.environ.copy())


def test_it_tells_what_the_run_would_do_and_leaves_nothing_behind(shards: Path, tmp_path: Path) -> None:
    done = _check(*SMALL, f"data.path={shards}", "trainer.max_steps=700", "name=mine", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0].split(" " * 2)[0].strip(): line for line in done.stdout.splitlines()}
    assert "7 clips of" in lines["data"]
    assert "400.0 times over all clips, 4 clips a step" in lines["passes"]
    assert "1 process(es) x 1 micro-batch(es) of 4 clips" in lines["batch"]
    assert lines["steps"].endswith(" 700")
    assert "0.001 at step 2" in done.stdout
    assert "for 700 steps" in lines["time"]
    assert "every 7 steps; one video" in lines["samples"]
    assert lines["folder"].endswith("runs/mine/TIME")
    assert "wandb (offline)" in lines["logger"]
    assert done.stdout.splitlines()[-1].startswith("Next: vdm train 'model.network.channels=[16,16]' ")
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_to_go_on_stays_as_it_is(shards: Path, tmp_path: Path) -> None:
    config: dict[str, Any] = configuration(shards, "trainer.max_steps=2")
    train(tmp_path / "run", config)
    before = _files(tmp_path)

    done = _check(f"resume={tmp_path / 'run'}", "trainer.max_steps=50", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "50, from step 2 on" in done.stdout
    assert "for 48 steps" in done.stdout
    assert _files(tmp_path) == before


def test_processes_share_what_is_rehearsed(shards: Path, tmp_path: Path) -> None:
    two = ["trainer.devices=2", "data.micro_batch_size=1", "hydra.run.dir=mine/run"]
    done = _check(*SMALL, *two, f"data.path={shards}", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "2 process(es) x 2 micro-batch(es) of 1 clips" in done.stdout
    assert "folder        " in done.stdout
    assert done.stdout.count("The check passed") == 1
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.iterdir())


def test_what_fails_is_one_line(shards: Path, tmp_path: Path, run_vdm: RunVdm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the device is\nout of memory")

    monkeypatch.setattr(Rehearsal, "on_train_batch_end", fail)
    code, err = run_vdm("check", *SMALL, f"data.path={shards}", "watchdog.minutes=null")

    assert code == 1
    assert err.endswith("The check failed at the first training step: RuntimeError: the device is out of memory\n")
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_told_as_by_training(tmp_path: Path, run_vdm: RunVdm) -> None:
    code, err = run_vdm("check", "data.path=nowhere")

    assert code == 2
    assert err.startswith("data.path: nowhere")
    assert not list(tmp_path.iterdir())


def test_metrics_are_checked_and_nothing_is_measured(
    shards: Path, run_vdm: RunVdm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: pytest.fail("has measured"))
    monkeypatch.chdir(tmp_path)
    given = ("check", *SMALL, f"data.path={shards}", "watchdog.minutes=null", "metric=[static_clips]")
    code, err = run_vdm(*given, "metric.static_clips.num_frames=4", "callbacks.measure.every_steps=1")
    assert code == 0, err
    code, err = run_vdm(*given)
    assert code == 2
    assert err.splitlines()[-1].startswith("metric.static_clips: a video of the model has 4 frames; 16 take 16")
