import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.workers import WorkerDiedError, map_in_processes
from tests.waiting import is_running, wait_until


def _square(number: int) -> int:
    return number * number


def _fragile(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise ValueError("five")
    return number


@pytest.mark.parametrize("num_workers", [0, 1, 3, None])
def test_every_item_is_worked_on_once(num_workers: int | None) -> None:
    done = dict(map_in_processes(_square, range(1, 11), num_workers))

    assert done == {number: number * number for number in range(1, 11)}


def test_more_processes_than_items_do_no_harm() -> None:
    assert dict(map_in_processes(_square, [2], 4)) == {2: 4}
    assert dict(map_in_processes(_square, [], 4)) == {}


def test_crash_of_a_process_costs_its_item_only() -> None:
    done = dict(map_in_processes(_fragile, [1, 2, 3, 4, 6, 7, 8], 2))

    died = done.pop(3)
    assert isinstance(died, WorkerDiedError)
    assert "exit code -9" in str(died)
    assert done == {number: number for number in (1, 2, 4, 6, 7, 8)}


def has_result(connection: Connection) -> bool:
    """Tell whether more has arrived than the message that an item has begun."""
    begun = 4 + len(ForkingPickler.dumps((False, None)))  # a message begins with its length
    number = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, number)
    return number[0] > begun


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections over which results were last waited for: ``poll`` tells that one is on its way."""
    found: list[Connection] = []

    def noting(busy: list[Connection]) -> list[Any]:
        found[:] = busy
        return wait(busy)

    monkeypatch.setattr("data_pipelines.workers.wait", noting)
    return found


def _return_something_large(paths: tuple[str, str]) -> bytes:
    """Return more than the buffer of a connection holds, once the file ``paths[1]`` exists if it is given."""
    started, may_end = map(Path, paths)
    started.write_text(str(os.getpid()))
    wait_until(may_end.exists, "it may not end")
    return bytes(1 << 24)


def test_crash_while_a_result_is_sent_costs_its_item_only(tmp_path: Path, connections: list[Connection]) -> None:
    may_end, second_may_end = tmp_path / "end", tmp_path / "second_end"
    items = [(str(tmp_path / "a"), str(may_end)), (str(tmp_path / "b"), str(second_may_end))]
    may_end.touch()
    results = map_in_processes(_return_something_large, [*items, (str(tmp_path / "c"), str(may_end))], 2)

    first = next(results)  # nothing is received until the next call
    second_may_end.touch()
    wait_until(lambda: all(has_result(each) for each in connections), "the second process sends nothing")
    os.kill(int((tmp_path / "b").read_text()), signal.SIGKILL)
    done = dict([first, *results])

    assert isinstance(done.pop(items[1]), WorkerDiedError)
    assert [len(result) for result in done.values() if isinstance(result, bytes)] == [1 << 24] * 2


def _name_process(path: str) -> int:
    (Path(path) / str(os.getpid())).touch()
    return os.getpid()


def test_crash_between_two_items_costs_none(tmp_path: Path, connections: list[Connection]) -> None:
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    results = map_in_processes(_name_process, map(str, folders), 2)

    first = next(results)
    wait_until(lambda: all(any(folder.iterdir()) for folder in folders[:2]), "two processes do not work")
    idle = {int(file.name) for folder in folders[:2] for file in folder.iterdir()} - {first[1]}
    wait_until(lambda: all(has_result(each) for each in connections), "a process sends no result")
    for process in idle:
        os.kill(process, signal.SIGKILL)
        wait_until(lambda process=process: not is_running(process), "it lives")
    done = dict([first, *results])

    assert len(done) == 6
    assert not any(isinstance(result, WorkerDiedError) for result in done.values())


def test_exception_is_raised_here() -> None:
    with pytest.raises(ValueError, match="five"):
        dict(map_in_processes(_fragile, [4, 5, 6], 2))


def test_items_are_drawn_when_a_process_is_free() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 100):
            drawn.append(number)
            yield number

    results = map_in_processes(_square, items(), 2)
    next(results)
    results.close()  # pyright: ignore[reportAttributeAccessIssue]

    assert len(drawn) <= 4


def _work_for_long(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(1000)


def test_processes_end_with_the_one_that_started_them_however_busy_they_are(tmp_path: Path) -> None:
    code = (
        "from data_pipelines.workers import map_in_processes\n"
        "from tests.data_pipelines.test_workers import _work_for_long\n"
        f"list(map_in_processes(_work_for_long, [{str(tmp_path)!r}] * 2, 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "they do not work")
    finally:
        parent.kill()
        parent.wait()
    workers = [int(file.name) for file in tmp_path.iterdir()]
    wait_until(lambda: not any(map(is_running, workers)), "a process has outlived its parent")
