"""Loader workers that die, outlive their training process, or find the machine short of shared memory."""

import os
import signal
from pathlib import Path

import pytest

from tests.training.runs import TINY
from tests.training.zygote import Zygote
from tests.waiting import children_of, is_running, wait_until

ENDLESS = ("trainer.max_steps=1000000", "save.every_steps=3", "data.num_workers=2")


class Run:
    """A run that trains, with the processes that load for it."""

    def __init__(self, zygote: Zygote, shards: Path, folder: Path) -> None:
        self.zygote = zygote
        self.log = folder / "log"
        command = ("train", f"data.path={shards}", *TINY, *ENDLESS, f"hydra.run.dir={folder / 'run'}")
        self.pid = zygote.start(command, {}, self.log)
        wait_until(lambda: list((folder / "run").glob("checkpoints/step=*")), "training has not begun", self._check)
        self.helpers = children_of(self.pid)
        (self.server,) = (pid for pid in self.helpers if children_of(pid))
        self.workers = children_of(self.server)

    def _check(self) -> None:
        assert self.zygote.poll(self.pid) is None, self.log.read_text()

    def wait(self) -> int:
        return self.zygote.wait([self.pid], timeout=60)[0]


@pytest.fixture
def run(zygote: Zygote, shards: Path, tmp_path: Path) -> Run:
    return Run(zygote, shards, tmp_path)


def test_loader_workers_and_their_server_end_when_the_training_process_is_killed(run: Run) -> None:
    assert len(run.workers) == 2
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    wait_until(lambda: not any(map(is_running, [*run.helpers, *run.workers])), "a process has outlived training")


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_death_of_what_loads_is_told_in_one_line_with_what_helps(run: Run, victim: str) -> None:
    pid = run.workers[1] if victim == "worker" else run.server
    os.kill(pid, signal.SIGKILL)
    assert run.wait() == 1
    log = run.log.read_text()
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if "died: " in line]
    assert ("loader worker 1" if victim == "worker" else "fork server") in line
    assert f"process {pid}" in line
    assert "SIGKILL" in line
    assert "data.num_workers" in line
    wait_until(lambda: not any(map(is_running, [*run.helpers, *run.workers])), "a process has outlived training")
