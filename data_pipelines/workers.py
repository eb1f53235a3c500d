"""Work spread over processes so that a crash of one costs only the item it was at."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from vdm.processes import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
    """The process that worked on an item ended: killed, out of memory, or a fault in a native library."""


class _Worker(Generic[Item, Result]):
    """A process that serves one item at a time."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        context = multiprocessing.get_context("forkserver")  # a plain fork would copy the threads' locks
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Item | None = None

    def start(self, item: Item) -> None:
        self.item = item
        self.connection.send(item)

    def result(self) -> Result | WorkerDiedError:
        try:
            result = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return WorkerDiedError(f"the process that read it died (exit code {self.process.exitcode})")
        if isinstance(result, Exception):
            raise result
        return result


def _serve(connection: Connection, function: Callable[[Item], Result]) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    with suppress(EOFError, ConnectionError):  # the parent needs no more, or is gone
        while True:
            item = connection.recv()
            connection.send(_outcome(function, item))


def _outcome(function: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return function(item)
    except Exception as error:
        return error


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int | None
) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
    """Apply ``function`` to every item; yield items with their results as they are done.

    Args:
        function: Importable by its name, as are items and results; what it raises is raised here.
        items: Drawn when a process is free.
        num_workers: Processes; None is one per core, 0 works in this process.
    """
    if num_workers == 0:
        yield from ((item, function(item)) for item in items)
        return
    waiting = iter(items)
    busy: dict[Connection, _Worker[Item, Result]] = {}
    try:
        for _, item in zip(range(num_workers or num_cores()), waiting, strict=False):
            worker = _Worker(function)
            worker.start(item)
            busy[worker.connection] = worker
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                worker = busy.pop(ready)
                assert worker.item is not None
                done, result = worker.item, worker.result()
                for item in waiting:
                    worker = _Worker(function) if isinstance(result, WorkerDiedError) else worker
                    worker.start(item)
                    busy[worker.connection] = worker
                    break
                yield done, result
    finally:
        for worker in busy.values():
            worker.process.terminate()


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
