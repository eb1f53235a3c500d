import threading
import time

import pytest

from vdm.training.loggers.worker import Worker


def finish(worker: Worker, seconds: float) -> bool:
    worker.end()
    return worker.finish(seconds)


def test_calls_are_done_in_order_and_submitting_does_not_wait_for_them() -> None:
    worker, gate, done = Worker("slow"), threading.Event(), list[int]()
    worker.submit(gate.wait)
    for number in range(100):
        worker.submit(lambda number=number: done.append(number))
    assert done == []
    gate.set()
    assert finish(worker, 10)
    assert done == list(range(100))


def test_failing_call_is_one_warning_and_later_calls_are_done(caplog: pytest.LogCaptureFixture) -> None:
    worker, done = Worker("mlflow"), list[int]()
    for _ in range(3):
        worker.submit(lambda: 1 / 0)
    worker.submit(lambda: done.append(1))
    assert finish(worker, 10)
    assert done == [1]
    first, last = [record.getMessage() for record in caplog.records]
    assert first == "mlflow: logging failed, and training goes on: division by zero"
    assert "3 calls that failed" in last


def test_service_that_hangs_costs_a_bounded_queue_and_a_bounded_time_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker, gate = Worker("hanging", max_waiting=5), threading.Event()
    for _ in range(20):
        worker.submit(gate.wait)
    start = time.monotonic()
    assert not finish(worker, 0.2)
    assert time.monotonic() - start < 5
    assert [record.getMessage().startswith("hanging") for record in caplog.records] == [True, True]
    gate.set()


def test_worker_that_has_finished_begins_again() -> None:
    worker, done = Worker("again"), list[int]()
    for number in range(2):
        worker.submit(lambda number=number: done.append(number))
        assert finish(worker, 10)
    assert done == [0, 1]
    assert "logger again" not in [thread.name for thread in threading.enumerate()]


def test_worker_without_a_call_ends_at_once_and_takes_calls_later() -> None:
    worker, done = Worker("none"), list[int]()
    assert finish(worker, 0)
    worker.submit(lambda: done.append(1))
    assert finish(worker, 10)
    assert done == [1]


def test_last_call_is_done_however_many_wait() -> None:
    worker, gate, done = Worker("full", max_waiting=1), threading.Event(), list[str]()
    for _ in range(5):
        worker.submit(gate.wait)
    worker.end(lambda: done.append("last"))
    gate.set()
    worker.finish(10)
    assert done == ["last"]
