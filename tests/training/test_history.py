"""The history of a run, as training writes it, whatever ends it."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch.callbacks import Callback

from tests.training.runs import configuration, train
from tests.training.test_stopping import Send, interrupted
from vdm.checkpoints.history import HISTORY_NAME, read_history, whole_cost
from vdm.checkpoints.metrics_file import METRICS_NAME
from vdm.checkpoints.run_record import versions_of
from vdm.data.shards import checksum
from vdm.objectives.denoising import Denoising
from vdm.training.training_run import build_training


class Failing(Denoising):
    """Denoises, and fails at its third loss."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("a bug\nof the user's own")
        return super().__call__(*args, **kwargs)


class FailAt(Callback):
    """Raises an error in one of the trainer's hooks."""

    def __init__(self, hook: str, error: BaseException) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise error

        setattr(self, hook, fail)


def kinds(run: Path) -> list[str]:
    return [event.event for event in read_history(run)]


def test_finished_run_has_its_start_and_its_end_and_goes_on_at_no_cost(tmp_path: Path, shards: Path) -> None:
    before = time.time()
    train(tmp_path, configuration(shards, "trainer.max_steps=2"))
    train(tmp_path, configuration(shards, "trainer.max_steps=3"), resume=True)

    events = read_history(tmp_path)
    assert kinds(tmp_path) == ["start", "first_step", "finish"] * 2
    assert [(event.step, event.position) for event in events] == [(0, 0), (1, 4), (2, 8), (2, 8), (3, 12), (3, 12)]
    assert before < events[0].time < events[1].time < events[2].time
    assert [(events[at].max_steps, events[at].resumed_from) for at in (0, 3)] == [
        (2, None),
        (3, "checkpoints/step=00000002"),
    ]
    assert [(events[at].lost_steps, events[at].num_processes, events[at].devices) for at in (0, 3)] == [
        (0, 1, "1 x cpu")
    ] * 2
    assert [events[at].lost_seconds for at in (0, 3)] == [0, 0]  # the first had nothing left to do


def test_start_says_what_was_done_before_and_is_repeated(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=2", "save.every_steps=1")
    train(tmp_path, config)
    lines = (tmp_path / HISTORY_NAME).read_text().splitlines(keepends=True)
    (tmp_path / HISTORY_NAME).write_text("".join(lines[:-1]))  # as if it had been killed
    seen = time.time() - 100
    with (tmp_path / METRICS_NAME).open("w") as file:
        file.write(
            json.dumps({"step": 5, "time": seen, "position": 20, "train/loss": "NaN"}) + "\n" + '{"step": 6, "ti'
        )
    os.utime(tmp_path / HISTORY_NAME, (seen, seen))
    train(tmp_path, {**config, "trainer": {**config["trainer"], "max_steps": 3}}, resume=True)

    start, first, _ = read_history(tmp_path)[2:]
    assert (start.step, start.lost_steps) == (2, 3)  # a line that was cut off counts for nothing
    former = max(seen, read_history(tmp_path)[1].time)
    assert start.lost_seconds == pytest.approx(start.time - former, abs=1e-3)
    assert whole_cost([start, first]) == pytest.approx(first.time - former, abs=1e-3)


def test_error_of_the_users_own_objective_is_one_line_of_the_history(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, f"objective._target_={__name__}.Failing")
    with pytest.raises(RuntimeError, match="a bug"):
        train(tmp_path, config)

    end = read_history(tmp_path)[-1]
    assert kinds(tmp_path) == ["start", "first_step", "fail"]
    assert (end.step, end.reason) == (2, "RuntimeError: a bug of the user's own")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("save: no space left"), ("fail", "save: no space left")),
        (KeyError("lost"), ("fail", "KeyError: 'lost'")),
        (MemoryError(), ("fail", "MemoryError")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_at_the_end_is_a_failure_and_no_finish(
    tmp_path: Path, shards: Path, error: Exception, expected: tuple[str, str]
) -> None:
    with pytest.raises(type(error)):
        interrupted(tmp_path, configuration(shards, "trainer.max_steps=1"), FailAt("on_train_end", error))

    end = read_history(tmp_path)[-1]
    assert (end.event, end.reason) == expected
    assert kinds(tmp_path).count("finish") == 0


def test_start_that_fails_before_training_has_an_end_without_a_step(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=1")
    train(tmp_path, config)
    for file in tmp_path.glob("checkpoints/*/checksums.json"):
        file.write_text("damaged")
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        train(tmp_path, {**config, "trainer": {**config["trainer"], "max_steps": 2}}, resume=True)

    end = read_history(tmp_path)[-1]
    assert (end.event, end.step, end.position) == ("fail", None, None)
    assert "not a whole checkpoint" in (end.reason or "")


def test_second_ctrl_c_is_a_stop_that_says_so(tmp_path: Path, shards: Path) -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *args: object) -> None:
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            interrupted(tmp_path, configuration(shards, "trainer.max_steps=3"), Interrupt())
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores further ones

    end = read_history(tmp_path)[-1]
    assert (end.event, end.step) == ("stop", 2)
    assert (end.reason or "").startswith("a second Ctrl-C")


def test_end_of_the_allowed_time_and_stop_before_the_first_step_are_stops(tmp_path: Path, shards: Path) -> None:
    endless = configuration(shards, "trainer.max_steps=100000", 'trainer.max_time="00:00:00:01"')
    train(tmp_path / "time", endless)
    assert [event.reason for event in read_history(tmp_path / "time")][2:] == ["trainer.max_time is over"]
    assert kinds(tmp_path / "time") == ["start", "first_step", "stop"]

    send = Send(signal.SIGTERM, "on_fit_start", step=0)
    interrupted(tmp_path / "early", configuration(shards, "trainer.max_steps=3"), send)
    assert [(event.event, event.step) for event in read_history(tmp_path / "early")] == [("start", 0), ("stop", 0)]


def test_training_goes_on_whatever_lies_in_place_of_the_history(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.joinpath("run").mkdir()
    os.mkfifo(tmp_path / "run" / HISTORY_NAME)
    training = train(tmp_path / "run", configuration(shards, "trainer.max_steps=1"))

    assert training.trainer.global_step == 1
    assert f"{HISTORY_NAME}: can't be read: is a named pipe, not a file; it is only a log" in caplog.text
    assert f"{HISTORY_NAME}: can't be written: is a named pipe, not a file" in caplog.text


def test_only_the_first_end_counts_though_the_watchdog_tells_another(tmp_path: Path, shards: Path) -> None:
    training = build_training(configuration(shards, "trainer.max_steps=1"), tmp_path)
    history = training.trainer.callbacks[-1]  # type: ignore[attr-defined]
    training.record()
    training.fit()
    thread = threading.Thread(target=history.ended, args=("Rank 1 died",))
    thread.start()
    thread.join()
    assert kinds(tmp_path) == ["start", "first_step", "finish"]


def test_record_of_a_start_names_the_set_and_the_machine(tmp_path: Path, shards: Path) -> None:
    build_training(configuration(shards), tmp_path).record()
    (start,) = versions_of(tmp_path)
    (data,) = start.get("data_sets", [])
    assert data == {
        "path": str(shards),
        "checksum": checksum((shards / "shards.parquet").read_bytes()),
        "num_samples": 11,
    }
    hardware = start.get("hardware", {})
    assert hardware["cores"] == len(os.sched_getaffinity(0))
    assert hardware["memory_gib"] == pytest.approx(
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 0.1
    )
    assert hardware["host"] == os.uname().nodename
    assert isinstance(hardware["gpus"], list)
