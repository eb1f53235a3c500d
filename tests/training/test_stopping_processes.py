"""Training that gets a signal, in processes of its own: with loader workers, with a second rank, at a terminal."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.runs import TINY
from tests.training.stages import train_in_processes
from tests.training.zygote import Zygote
from vdm.checkpoints.history import read_history
from vdm.checkpoints.layout import checkpoints_of, step_of

RECORD = "+callbacks.record._target_=tests.training.chaos.RecordSamples"


@pytest.mark.parametrize(("hook", "steps"), [("on_fit_start", 0), ("on_train_start", 0), ("on_train_end", 2)])
def test_signal_to_one_of_two_processes_outside_of_steps_ends_both_in_order(
    tmp_path: Path, shards: Path, zygote: Zygote, hook: str, steps: int
) -> None:
    callback = f"+callbacks.terminate={{_target_:tests.training.planting.TerminateOneRank,hook:{hook}}}"
    train_in_processes(shards, tmp_path, f"ddp 2 {callback}", zygote=zygote)

    assert [folder.name for folder in checkpoints_of(tmp_path)] == ([f"step={steps:08d}"] if steps else [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_to_all_processes_leaves_loader_workers_until_the_run_is_saved(
    tmp_path: Path, shards: Path, zygote: Zygote, number: int
) -> None:
    options = ("trainer.max_steps=100000", "data.num_workers=1", "validate.every_steps=2", "save.every_steps=100000")
    command = ("train", f"data.path={shards}", *TINY, *options, RECORD, f"hydra.run.dir={tmp_path / 'run'}")
    pid = zygote.start(command, {}, tmp_path / "log")
    wait_for_step(tmp_path / "run" / "phase", 3, lambda: zygote.poll(pid) is not None)
    os.killpg(pid, number)
    code = zygote.wait([pid], timeout=60)

    log = (tmp_path / "log").read_text()
    assert code == [128 + number], log
    assert "Stopped and saved after step" in log
    assert "Traceback" not in log
    (saved,) = checkpoints_of(tmp_path / "run")
    end = read_history(tmp_path / "run")[-1]
    assert (end.event, end.step) == ("stop", step_of(saved))
    assert end.reason == ("Ctrl-C" if number == signal.SIGINT else f"signal {signal.Signals(number).name}")


def test_run_whose_terminal_is_closed_is_saved(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    options = ("trainer.max_steps=100000", "data.num_workers=1", "save.every_steps=100000")
    bar = "callbacks.progress={_target_:vdm.training.callbacks.progress.StepProgressBar}"
    command = ("train", f"data.path={shards}", *TINY, *options, bar, RECORD, f"hydra.run.dir={tmp_path / 'run'}")
    master, terminal = os.openpty()
    os.set_blocking(master, False)
    pid = zygote.start(command, {}, Path(os.ttyname(terminal)))  # as the leader of a session it takes it over

    def has_ended() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(master, 1 << 16)
        return zygote.poll(pid) is not None

    wait_for_step(tmp_path / "run" / "phase", 3, has_ended)
    os.close(terminal)
    os.close(master)
    assert zygote.wait([pid], timeout=60) == [128 + signal.SIGHUP]

    assert len(checkpoints_of(tmp_path / "run")) == 1


def wait_for_step(phase: Path, step: int, has_ended: Callable[[], bool]) -> None:
    """Wait until a run under ``RecordSamples`` trains, and has done so many steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not has_ended():
        words = phase.read_text().split() if phase.exists() else []
        if len(words) == 2 and int(words[1]) >= step:
            return
        time.sleep(0.01)
    raise AssertionError("it has not come so far")
