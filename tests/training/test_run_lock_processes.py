"""Two commands at one folder, as real processes."""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.training.runs import TINY
from tests.training.zygote import Zygote, free_port
from vdm.checkpoints.history import read_history, whole_cost
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import checkpoints_of, step_of
from vdm.checkpoints.metrics_file import METRICS_NAME

GOES_ON = re.compile(r"a run is going on in this folder \(process \d+ on .*, since .*\); wait for its end")


def arguments(shards: Path, *more: str) -> list[str]:
    return ["train", f"data.path={shards}", *TINY, "save.every_steps=1", *more]


def wait_until(happened: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def last_line(log: Path) -> str:
    return log.read_text().splitlines()[-1]


def test_second_start_in_a_folder_is_refused_and_a_killed_one_is_resumed_at_once(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    run = tmp_path / "run"
    (tmp_path / "slow.log").touch()
    slow = ["trainer.max_steps=100000", f"hydra.run.dir={run}"]
    first = zygote.start(arguments(shards, *slow), {}, tmp_path / "slow.log")
    wait_until(lambda: checkpoints_of(run), tmp_path / "slow.log")
    refusals: Sequence[list[str]] = (arguments(shards, *slow), ["train", f"resume={run}"])
    for number, argv in enumerate(refusals):
        log = tmp_path / f"refused{number}.log"
        assert zygote.wait([zygote.start(argv, {}, log)], timeout=120) == [2], log.read_text()
        assert GOES_ON.search(last_line(log)), log.read_text()
    assert zygote.poll(first) is None
    os.kill(first, signal.SIGKILL)
    assert zygote.wait([first], timeout=60) == [-9]

    killed = time.time()
    last = step_of(latest_checkpoint(run))
    with (run / METRICS_NAME).open("a") as file:  # as of steps that were done after the checkpoint
        file.write(f'{{"step": {last + 7}, "time": {killed}, "position": 0, "train/loss": 0.5}}\n')
    log = tmp_path / "resumed.log"
    resumed = zygote.start(["train", f"resume={run}", f"trainer.max_steps={last + 2}"], {}, log)
    assert zygote.wait([resumed], timeout=120) == [0], log.read_text()
    assert step_of(latest_checkpoint(run)) == last + 2
    history = read_history(run)
    assert [event.event for event in history] == ["start", "first_step", "start", "first_step", "finish"]
    again, end = history[2], history[4]
    assert again.command == f"vdm train resume={run} trainer.max_steps={last + 2}"
    assert (again.step, again.resumed_from, again.lost_steps) == (last, f"checkpoints/step={last:08d}", 7)
    assert 0 < whole_cost(history[2:]) == pytest.approx(history[3].time - killed, abs=0.1)
    assert (end.step, end.reason) == (last + 2, f"all {last + 2} steps are done")


def test_processes_that_start_at_the_same_moment_share_no_folder(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    at_one_time = f"hydra.run.dir='${{vdm.run_folder:null,{tmp_path}/runs,TIME}}'"
    processes = [
        zygote.start(arguments(shards, "trainer.max_steps=1", at_one_time, f"seed={number}"), {}, log)
        for number, log in enumerate(logs)
    ]
    assert zygote.wait(processes, timeout=240) == [0] * 3, [log.read_text() for log in logs]
    folders = re.findall(r"(?m)The run is in (.*)$", "".join(log.read_text() for log in logs))
    assert sorted(folders) == [f"{tmp_path}/runs/TIME{suffix}" for suffix in ("", "_2", "_3")]
    for number, folder in enumerate(folders):
        assert f"seed: {number}\n" in (Path(folder) / "config.yaml").read_text()


def test_processes_of_one_run_share_its_lock(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    argv = arguments(
        shards, "trainer.max_steps=1", "trainer.devices=2", "strategy=ddp", "strategy.process_group_backend=gloo"
    )
    shared = {"TORCHELASTIC_RUN_ID": "mine", "GROUP_WORLD_SIZE": "1", "MASTER_PORT": str(free_port())}
    ranks = zygote.start_ranks([*argv, f"hydra.run.dir={run}"], 2, log, **shared)
    assert zygote.wait(ranks, timeout=240) == [0, 0], [path.read_text() for path in tmp_path.glob("log*")]
    assert [path.name for path in (run / "locks").iterdir()] == ["start.0"]
