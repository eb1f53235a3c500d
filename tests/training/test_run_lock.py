"""A run's folder is one start's at a time; who has lost it, or whose folder is gone, says so and writes nothing."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

from tests.training.runs import configuration, train
from tests.waiting import wait_until
from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.config import ConfigError
from vdm.lock_files import LockHolder, acquire, lock_file, lock_holders
from vdm.training import run_lock
from vdm.training.module import DiffusionModule
from vdm.training.run_lock import SILENT_SECONDS, lock_run, refuse_if_locked
from vdm.training.training_run import TrainingRun, build_training

JOB = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "vdm", "SLURM_PROCID": "0"}


def plant(run: Path, holder: LockHolder, silent_seconds: float = 0.0, folder: str = "locks") -> Path:
    """Leave a lock file behind as another process would, and return its file."""
    path = run / folder / "start"
    path.parent.mkdir(parents=True, exist_ok=True)
    number = len(lock_holders(path))
    assert acquire(path, number, holder.text())
    file = lock_file(path, number)
    touched = file.stat().st_mtime - silent_seconds
    os.utime(file, (touched, touched))
    return file


def elsewhere(**changes: object) -> LockHolder:
    return replace(LockHolder.this_process(), host="node7", boot="another", **changes)  # pyright: ignore


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_folder_of_a_run_that_is_going_on_is_refused_in_one_line_until_its_process_is_dead(
    tmp_path: Path, other_process: subprocess.Popen[bytes]
) -> None:
    held = replace(LockHolder.this_process(), process=other_process.pid, process_start=None)
    plant(tmp_path, held, silent_seconds=1e6)
    for attempt in (lambda: refuse_if_locked(tmp_path, is_first=True), lambda: lock_run(tmp_path).__enter__()):
        with pytest.raises(ConfigError) as told:
            attempt()
        assert str(told.value) == (
            f"{tmp_path}: a run is going on in this folder ({held}, since {held.since}); wait for its end, or choose"
            " another folder by hydra.run.dir"
        )
    other_process.kill()
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    refuse_if_locked(tmp_path, is_first=True)
    with lock_run(tmp_path) as mine:
        mine.check()


def test_folder_is_free_when_a_run_has_ended_well_or_badly(tmp_path: Path) -> None:
    with lock_run(tmp_path):
        pass
    with pytest.raises(ValueError, match="training failed"), lock_run(tmp_path):
        raise ValueError("training failed")
    plant(tmp_path, elsewhere(ended="a minute ago"))
    refuse_if_locked(tmp_path, is_first=True)
    with lock_run(tmp_path) as mine, pytest.raises(ConfigError, match=f"process {os.getpid()}"), lock_run(tmp_path):
        mine.check()


def test_lock_of_a_process_of_an_earlier_version_is_respected_and_taken_over(tmp_path: Path) -> None:
    file = plant(tmp_path, elsewhere(), folder="claims")
    with pytest.raises(ConfigError, match="on node7"):
        refuse_if_locked(tmp_path, is_first=True)
    os.utime(file, (0, 0))
    with lock_run(tmp_path) as mine:
        assert mine.file == lock_file(tmp_path / "claims" / "start", 1)
    assert not (tmp_path / "locks").exists()


def test_run_on_another_machine_counts_as_dead_after_its_silence_alone(tmp_path: Path) -> None:
    plant(tmp_path, elsewhere(), silent_seconds=SILENT_SECONDS - 60)
    with pytest.raises(
        ConfigError, match=r"on node7, since .*; last sign of life 6\d s ago, and 120 s without one free"
    ):
        refuse_if_locked(tmp_path, is_first=True)
    os.utime(lock_file(tmp_path / "locks" / "start", 0), (0, 0))
    with lock_run(tmp_path) as mine:
        mine.check()


def test_damaged_lock_file_holds_no_longer_than_one_of_another_machine(tmp_path: Path) -> None:
    file = plant(tmp_path, elsewhere())
    file.write_text("")
    with pytest.raises(ConfigError, match=r"start\.0, which can't be read; last sign of life"), lock_run(tmp_path):
        pass
    os.utime(file, (0, 0))
    with lock_run(tmp_path):
        pass


def test_job_that_is_started_again_goes_on_at_once_wherever_it_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, elsewhere(job="slurm-12", start=[0, 0]))
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="of slurm-12 on node7"):  # the same folder given twice in one job
        refuse_if_locked(tmp_path, is_first=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with lock_run(tmp_path):
        pass


def test_further_processes_of_a_start_share_the_lock_of_its_first_and_refuse_that_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, elsewhere(job="torchrun-mine", start=[0, 0]))
    refuse_if_locked(tmp_path, is_first=False)  # started by hand, or by Lightning: nobody knows by whom
    for name, wanted in (("mine", True), ("yours", False)):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        if wanted:
            refuse_if_locked(tmp_path, is_first=False)
        else:
            with pytest.raises(ConfigError, match="a run is going on"):
                refuse_if_locked(tmp_path, is_first=False)


def test_nodes_of_torchrun_that_share_only_a_folder_lock_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with lock_run(tmp_path):
        refuse_if_locked(tmp_path, is_first=False)
        with pytest.raises(ConfigError, match="a run is going on"):
            refuse_if_locked(tmp_path, is_first=True)


def test_heartbeat_keeps_the_lock_of_a_run_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.01)
    with lock_run(tmp_path) as mine:
        os.utime(mine.file, (0, 0))
        wait_until(lambda: mine.file.stat().st_mtime > 0, "the heart does not beat")


def fit_in_locked_folder(training: TrainingRun, run: Path) -> None:
    with lock_run(run) as lock:
        training.strategy.run_lock = lock
        training.fit()


class BeforeSavingStep2(Callback):
    """Lets something happen to a run's folder before its second checkpoint is saved."""

    def __init__(self, run: str, what: str) -> None:
        self.run, self.what = Path(run), what

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        if trainer.global_step != 2:
            return
        pl_module.strategy.writer.finish()
        if self.what == "renamed":
            self.run.rename(self.run.with_name("renamed"))
        elif self.what == "removed":
            shutil.rmtree(self.run)
        else:
            plant(self.run, elsewhere())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("renamed", r"run: the run's folder is not there any more, renamed or removed .*: what was trained since"),
        ("removed", r"run: the run's folder is not there any more, renamed or removed .*: what was trained since"),
        ("taken over", r"run: process \d+ on node7 has taken the run over, since this one showed no sign"),
    ],
)
def test_run_that_has_lost_its_folder_ends_in_one_line_at_its_next_save_and_writes_nothing(
    tmp_path: Path, shards: Path, what: str, message: str
) -> None:
    run = tmp_path / "run"
    config = configuration(shards, "save.every_steps=1", "save.keep.best=1", "trainer.max_steps=9")
    config["callbacks"]["fault"] = {"_target_": f"{__name__}.BeforeSavingStep2", "run": str(run), "what": what}
    run.mkdir()
    (run / "config.yaml").touch()
    training = build_training(config, run)
    with pytest.raises(ValueError, match=message) as told:
        fit_in_locked_folder(training, run)
    assert "\n" not in str(told.value)
    left = tmp_path / "renamed" if what == "renamed" else run
    if what == "removed":
        assert not run.exists()
    else:
        assert [step_of(folder) for folder in checkpoints_of(left)] == [1]
        assert [path.name for path in tmp_path.iterdir()] == [left.name]
    if what == "taken over":
        last = json.loads(lock_holders(run / "locks" / "start")[-1])
        assert (last["host"], last["ended"]) == ("node7", None)


def test_without_a_lock_no_checkpoint_appears_in_a_folder_that_is_gone(tmp_path: Path, shards: Path) -> None:
    run = tmp_path / "run"
    config = configuration(shards, "save.every_steps=1", "trainer.max_steps=9")
    config["logger"] = {}
    config["callbacks"]["fault"] = {"_target_": f"{__name__}.BeforeSavingStep2", "run": str(run), "what": "renamed"}
    with pytest.raises(ValueError, match=r"step=00000002: can't be saved: .*No such file or directory"):
        train(run, config)
    assert [path.name for path in tmp_path.iterdir()] == ["renamed"]
