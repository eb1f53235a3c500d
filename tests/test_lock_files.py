import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vdm.lock_files import LockHolder, acquire, heartbeat, lock_file, lock_holders, silence

RACER = """
import sys
from pathlib import Path
from vdm.lock_files import acquire, lock_holders
folder, name, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    path = folder / f"item{number}"
    owners = lock_holders(path)
    assert all(owners), "a lock file appears with its whole text"
    if acquire(path, len(owners), name * 1000):
        print(number, len(owners))
"""


def test_of_many_processes_exactly_one_gets_each_lock(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(number), "300"], stdout=subprocess.PIPE)
        for number in range(6)
    ]
    won = [line for racer in racers for line in racer.communicate(timeout=120)[0].splitlines()]

    assert [racer.returncode for racer in racers] == [0] * 6
    assert len(won) == len(set(won)), "a number of an item went to two"
    assert {int(line.split()[0]) for line in won} == set(range(300))
    assert not list(tmp_path.glob(".*"))


def test_a_lock_of_a_dead_holder_is_taken_over_once_however_late_a_process_acts(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert acquire(path, 0, "dead")
    seen_by_all = lock_holders(path)
    barrier = threading.Barrier(8)
    won: list[str] = []

    def take_over(name: str) -> None:
        barrier.wait()
        if acquire(path, len(seen_by_all), name):
            won.append(name)

    threads = [threading.Thread(target=take_over, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lock_holders(path) == ["dead", *won]
    assert len(won) == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_one_process_alone_gets_the_lock_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assert acquire(tmp_path / "a", 0, "first", durable=True)
    assert not acquire(tmp_path / "a", 0, "second")
    assert lock_holders(tmp_path / "a") == ["first"]


def test_lock_file_that_storage_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space"):
        acquire(tmp_path / "a", 0, "first")
    assert not list(tmp_path.iterdir())


def test_who_beats_is_not_silent(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert silence(path) == float("inf")
    path.touch()
    os.utime(path, (0, 0))
    assert silence(path) > 1e6
    with heartbeat(path, 0.01):
        deadline = time.monotonic() + 60
        while silence(path) > 1e6:
            assert time.monotonic() < deadline
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def me() -> LockHolder:
    return LockHolder.this_process()


def test_process_of_this_machine_lives_until_it_dies_however_silent_it_is(me: LockHolder) -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        its = replace(me, process=other.pid, process_start=None)
        assert its.is_alive(me, silent_seconds=1e9, max_silent_seconds=120)
        assert me.is_alive(me, silent_seconds=1e9, max_silent_seconds=120)
    finally:
        other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not asked for its exit code
    assert not its.is_alive(me, silent_seconds=0, max_silent_seconds=120)
    other.wait()
    assert not its.is_alive(me, silent_seconds=0, max_silent_seconds=120)


def test_process_id_that_was_used_again_is_not_taken_for_the_holder(me: LockHolder) -> None:
    assert me.process_start is not None
    assert not replace(me, process_start=me.process_start - 1).is_alive(me, 0, 120)


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"boot": "other"}, {"namespace": "pid:[1]"}])
def test_of_another_machine_or_container_silence_decides(me: LockHolder, elsewhere: dict[str, str]) -> None:
    other = replace(me, **elsewhere)
    assert other.is_alive(me, silent_seconds=119, max_silent_seconds=120)
    assert not other.is_alive(me, silent_seconds=121, max_silent_seconds=120)


def test_later_start_of_the_same_job_does_not_wait(me: LockHolder) -> None:
    before = replace(me, host="other", job="slurm-12", start=[0, 0])
    for job, start, holds in (("slurm-12", [1, 0], False), ("slurm-12", [0, 0], True), ("slurm-13", [1, 0], True)):
        assert before.is_alive(replace(me, job=job, start=start), 0, 120) == holds


def test_lock_file_is_read_as_it_was_written_and_damage_is_none(me: LockHolder) -> None:
    assert LockHolder.read(me.text()) == me
    ended = LockHolder.read(me.ending())
    assert ended is not None
    assert not ended.is_alive(me, 0, 120)
    content = json.loads(me.text())
    for damaged in ("", "{", "[]", "null", "{}", json.dumps({**content, "process": "x"}), "[" * 100_000):
        assert LockHolder.read(damaged) is None


def test_lock_files_are_numbered_from_0(tmp_path: Path) -> None:
    acquire(tmp_path / "a", 0, "x")
    acquire(tmp_path / "a", 1, "y")
    assert [lock_file(tmp_path / "a", number).read_text() for number in (0, 1)] == ["x", "y"]
