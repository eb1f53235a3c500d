import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_pipelines.executors.slurm import MAX_DEAD_TASKS, SlurmExecutor
from tests.data_pipelines.executors.work import start_task, times_begun
from vdm.lock_files import acquire


def _task(folder: Path, number: int, count: int, seconds: float) -> subprocess.Popen[str]:
    program = "tests.data_pipelines.executors.array"
    return start_task(number, program, folder, count, seconds, stderr=subprocess.STDOUT)


def _wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, f"{count} files {pattern} did not appear"
        time.sleep(0.02)


def test_tasks_share_the_work_and_each_item_is_done_once(tmp_path: Path) -> None:
    tasks = [_task(tmp_path, number, count=12, seconds=0.3) for number in range(2)]
    outputs = [task.communicate(timeout=120)[0] for task in tasks]

    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert all(output.endswith("all done\n") for output in outputs)
    assert times_begun(tmp_path) == {f"job{number}": 1 for number in range(12)}
    assert len({path.read_text() for path in tmp_path.glob("*.begun-0")}) == 2


def test_killed_task_s_work_is_finished_by_the_other_with_at_most_its_current_item_repeated(tmp_path: Path) -> None:
    doomed, other = (_task(tmp_path, number, count=12, seconds=0.3) for number in range(2))
    _wait_for(tmp_path, "*.begun-*", 4)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()

    output = other.communicate(timeout=120)[0]

    assert (other.returncode, output.splitlines()[-1]) == (0, "all done"), output
    assert len(list(tmp_path.glob("*.done"))) == 12
    begun = times_begun(tmp_path)
    assert sum(begun.values()) - len(begun) <= 1


def test_what_takes_whole_tasks_down_is_given_up_and_the_rest_is_done(tmp_path: Path) -> None:
    program = "tests.data_pipelines.executors.array"
    ends: list[tuple[int, str]] = []
    for number in [0] * (MAX_DEAD_TASKS + 1):  # requeued
        task = start_task(number, program, tmp_path, 6, 0.6, "job2", stderr=subprocess.STDOUT)
        output = task.communicate(timeout=120)[0]
        ends.append((task.returncode, output.splitlines()[-1] if output else ""))

    assert [returncode for returncode, _ in ends] == [-signal.SIGKILL] * MAX_DEAD_TASKS + [0], ends
    assert "job2 3 tasks of the array died while they were at it\n" in output
    assert output.endswith("all done\n")
    assert times_begun(tmp_path)["job2"] == MAX_DEAD_TASKS
    assert len(list(tmp_path.glob("*.done"))) == 5  # what was done beside it as well


@pytest.mark.parametrize("dead", [0, 2])
def test_what_is_to_be_done_once_is_done_once_by_many_tasks_at_the_same_moment(tmp_path: Path, dead: int) -> None:
    tasks = [SlurmExecutor(num_tasks=12, alive_seconds=0.02, dead_seconds=30.0) for _ in range(12)]
    barrier = threading.Barrier(len(tasks))
    begun: list[int] = []

    def run(task: SlurmExecutor) -> None:
        for number in range(25):
            barrier.wait()
            task.once(lambda number=number: begun.append(number), f"publish{number}", tmp_path / "locks")

    (tmp_path / "locks").mkdir()
    for number in range(25):
        for former in range(dead):  # they left no sign of life
            assert acquire(tmp_path / "locks" / f"publish{number}.lock", former, f"none-node-{former}")
    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert begun == list(range(25))


def test_what_an_owner_has_done_just_before_it_was_gone_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = SlurmExecutor(), SlurmExecutor()
    done: list[str] = []
    holders_of = SlurmExecutor._holders

    def seen_before_the_end(locks: Path, name: str) -> list[str]:
        found = holders_of(locks, name)
        if not done:
            first.once(lambda: done.append("first"), name, locks)
            found = holders_of(locks, name)
        return found

    locks = tmp_path / "locks"
    monkeypatch.setattr(second, "_holders", seen_before_the_end)
    second.once(lambda: done.append("second"), "publish", locks)

    assert done == ["first"]


def test_outside_of_an_array_the_command_submits_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    script = 'printf "%s\\n" "$@" > "$(dirname "$0")/arguments"; echo Submitted 42'
    (programs / "sbatch").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["vdm-data", "curate", "input=my videos", "output=x"])

    message = SlurmExecutor(num_tasks=3, cpus_per_task=5, sbatch=["--partition=cpu"]).submit(tmp_path / "logs")

    arguments = (programs / "arguments").read_text().splitlines()
    assert message == "Submitted 42"
    assert {"--array=0-2", "--cpus-per-task=5", "--partition=cpu", "--requeue"} < set(arguments)
    assert arguments[-1] == f"--wrap={sys.executable} -m data_pipelines.cli curate 'input=my videos' output=x"


def test_inside_of_an_array_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")

    assert SlurmExecutor().submit(tmp_path) is None


def test_without_sbatch_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)

    with pytest.raises(ValueError, match=r"executor=slurm: there is no sbatch here"):
        SlurmExecutor().submit(tmp_path)
