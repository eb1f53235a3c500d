"""Work spread over processes; a process that dies costs only the item that it was working on."""

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
    """A process died while it worked on an item: killed, out of memory, or by a fault in a native library."""


class _Worker(Generic[Item, Result]):
    """A process that works on one item at a time, with a connection of its own."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        context = multiprocessing.get_context("forkserver")  # a plain fork would copy locks that threads hold
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Item | None = None
        self.has_begun = False
        """Whether the process has said that it works on the item."""
        self.result: Result | WorkerDiedError
        self._num_items = 0

    @property
    def died_idle(self) -> bool:
        """Whether a process that is dead had done items before, and not begun its last one: it did not die of that.

        One that is dying still takes an item.
        """
        return not self.has_begun and self._num_items > 1

    def start(self, item: Item) -> bool:
        """Send an item to the process; return whether it was still alive to take it."""
        self.item, self.has_begun = item, False
        self._num_items += 1
        try:
            self.connection.send(item)
        except ConnectionError:
            return False
        return True

    def receive(self) -> bool:
        """Take what the process has sent; return whether the item is finished, and ``result`` known.

        Raises:
            Exception: What the function raised.
        """
        try:
            is_done, result = self.connection.recv()
        except (EOFError, OSError):  # the process died before it had sent its result, or while it did
            self.process.join()
            self.result = WorkerDiedError(f"the process that read it died (exit code {self.process.exitcode})")
            return True
        if isinstance(result, Exception):
            raise result
        self.has_begun, self.result = True, result
        return is_done


def _serve(connection: Connection, function: Callable[[Item], Result]) -> None:
    """Answer each item with its result, until the parent closes the connection."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its workers
    with suppress(EOFError, ConnectionError):
        while True:
            item = connection.recv()
            connection.send((False, None))
            connection.send((True, _result_or_error(function, item)))


def _result_or_error(function: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return function(item)
    except Exception as error:
        return error


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int | None
) -> Iterator[tuple[Item, Result | WorkerDiedError]]:
    """Apply ``function`` to every item; yield each item with its result, in the order in which they finish.

    Args:
        function: Importable by its name. It, the items and the results must be picklable; its exceptions are raised
            here, and end the work.
        items: Taken from the iterable one at a time, when a process is free.
        num_workers: Number of processes; None is one per core, 0 works in this process.
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
                worker = busy[ready]
                if not worker.receive():
                    continue
                del busy[ready]
                assert worker.item is not None
                done, result = worker.item, worker.result
                is_dead = isinstance(result, WorkerDiedError)
                if is_dead and worker.died_idle:
                    again = _Worker(function)
                    again.start(done)
                    busy[again.connection] = again
                    continue
                for item in waiting:
                    if is_dead or not worker.start(item):
                        worker = _Worker(function)
                        worker.start(item)
                    busy[worker.connection] = worker
                    break
                yield done, result
    finally:
        for worker in busy.values():
            worker.process.terminate()


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
