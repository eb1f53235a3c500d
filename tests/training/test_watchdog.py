"""When one process of a run dies, fails or stands still, all end, and the reason is told once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

from tests.training.runs import TINY
from tests.training.zygote import Zygote
from vdm.checkpoints.history import read_history
from vdm.checkpoints.layout import checkpoints_of, step_of

ENDLESS = ("trainer.max_steps=100000", "save.every_steps=3", "strategy=ddp", "trainer.devices=2")


class FailInOneProcess(Callback):
    """Fails in one process, at a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank = rank
        self.step = step

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: object) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            raise RuntimeError("a bug in one process alone")


def arguments(shards: Path, run: Path, *overrides: str) -> list[str]:
    return ["train", f"data.path={shards}", *TINY, *ENDLESS, f"hydra.run.dir={run}", *overrides]


def last_step(run: Path) -> int:
    return max((step_of(checkpoint) for checkpoint in checkpoints_of(run)), default=0)


def wait_for_checkpoint(run: Path, is_over: Callable[[], bool], after_step: int = 0) -> None:
    deadline = time.monotonic() + 240
    while last_step(run) <= after_step:
        assert time.monotonic() < deadline, "training does not go on"
        assert not is_over(), "training has ended"
        time.sleep(0.05)


def has_any_ended(zygote: Zygote, pids: Sequence[int]) -> bool:
    return any(zygote.poll(pid) is not None for pid in pids)


def logs(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in sorted(tmp_path.glob("*.log"))]


@pytest.mark.parametrize("victim", [0, 1])
def test_death_of_a_process_ends_all_others_and_is_told_once(
    tmp_path: Path, shards: Path, zygote: Zygote, victim: int
) -> None:
    pids = zygote.start_ranks(arguments(shards, tmp_path / "run"), 2, tmp_path / "out.log")
    wait_for_checkpoint(tmp_path / "run", lambda: has_any_ended(zygote, pids))
    os.kill(pids[victim], signal.SIGKILL)
    begin = time.monotonic()
    codes = zygote.wait(pids, timeout=30)
    assert time.monotonic() - begin < 30
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1
    text = "".join(logs(tmp_path))
    assert text.count(f"process {pids[victim]}) died: ") == 1
    assert "Traceback" not in text
    last = read_history(tmp_path / "run")[-1]
    assert last.event == ("first_step" if victim == 0 else "fail")  # the first process writes, and was killed
    assert victim == 0 or f"process {pids[victim]}) died: " in (last.reason or "")


def test_frozen_process_is_found_and_all_end_after_showing_where_they_stood(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    """Two runs at a time, of which either loses another process: the watchdog's waiting is most of the test."""
    runs: list[list[int]] = []
    for victim in (0, 1):
        argv = arguments(shards, tmp_path / f"run{victim}", "watchdog.minutes=0.1")
        runs.append(zygote.start_ranks(argv, 2, tmp_path / f"victim{victim}.log"))
    for victim, pids in enumerate(runs):
        wait_for_checkpoint(tmp_path / f"run{victim}", lambda pids=pids: has_any_ended(zygote, pids))
        os.kill(pids[victim], signal.SIGSTOP)
    for victim, pids in enumerate(runs):
        codes = zygote.wait(pids, timeout=90)
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] == 1
        text = (tmp_path / f"victim{victim}.{1 - victim}.log").read_text()
        assert f"Rank {victim} " in text
        assert text.count(f"process {pids[victim]}) does not answer: killed") == 1
        assert "Thread MainThread:" in text
        assert "training_epoch_loop.py" in text  # where the other one stood


def test_failure_of_one_process_is_told_once_and_ends_all(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    fail = f"+callbacks.fail={{_target_:{__name__}.FailInOneProcess,rank:1,step:2}}"
    pids = zygote.start_ranks(arguments(shards, tmp_path / "run", fail), 2, tmp_path / "out.log")
    assert zygote.wait(pids, timeout=90) == [1, 1]
    text = "".join(logs(tmp_path))
    assert text.count("RuntimeError: a bug in one process alone") == 1
    assert text.count("Traceback") == 1
    end = read_history(tmp_path / "run")[-1]
    assert end.event == "fail"
    assert "RuntimeError: a bug in one process alone" in (end.reason or "")
    assert "Traceback" not in (end.reason or "")


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.chaos), 1])
def test_processes_started_by_the_command_itself_end_together(tmp_path: Path, shards: Path, victim: int) -> None:
    log = tmp_path / "out.log"
    command = [sys.executable, "-m", "vdm.cli.main", *arguments(shards, tmp_path / "run")]
    with log.open("w") as out:
        first = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        wait_for_checkpoint(tmp_path / "run", lambda: first.poll() is not None)
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first.pid)], capture_output=True, text=True)
        (child,) = [int(pid) for pid in listed.stdout.split() if "LOCAL_RANK=1" in environment(int(pid))]
        os.kill((first.pid, child)[victim], signal.SIGKILL)
        assert first.wait(30) == (-signal.SIGKILL if victim == 0 else 1)
        deadline = time.monotonic() + 30
        while environment(child):
            assert time.monotonic() < deadline, "a process has outlived the others"
            time.sleep(0.1)
    finally:
        first.kill()
    text = log.read_text()
    assert "Traceback" not in text
    if victim == 1:
        assert text.count(f"process {child}) died: killed by signal 9 (SIGKILL)") == 1


def environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return []


def test_run_that_was_suspended_for_longer_than_the_watchdog_waits_goes_on(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    """A run of one process and one of two, suspended at the same time."""
    one = ("watchdog.minutes=0.2", "trainer.devices=1", "strategy=auto")
    runs = {
        tmp_path / "run1": zygote.start_ranks(arguments(shards, tmp_path / "run1", *one), 1, tmp_path / "one.log"),
        tmp_path / "run2": zygote.start_ranks(arguments(shards, tmp_path / "run2", one[0]), 2, tmp_path / "two.log"),
    }
    for run, pids in runs.items():
        wait_for_checkpoint(run, lambda pids=pids: has_any_ended(zygote, pids))
    everyone = [pid for pids in runs.values() for pid in pids]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(14)
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    for run, pids in runs.items():
        wait_for_checkpoint(run, lambda pids=pids: has_any_ended(zygote, pids), after_step=last_step(run))
        os.kill(pids[0], signal.SIGTERM)
    for pids in runs.values():
        assert zygote.wait(pids, timeout=120)[0] == 128 + signal.SIGTERM
    text = "".join(logs(tmp_path))
    assert "Traceback" not in text
    assert "stands here" not in text
