"""A thread that does a logger's work, so that training never waits for a server or a slow disk."""

import logging
import queue
import threading
from collections.abc import Callable

MAX_WAITING = 10_000
"""Calls that may wait; further ones are dropped, so that memory stays bounded while a server is away."""

_log = logging.getLogger(__name__)


class Worker:
    """Does calls one after the other in a thread of its own.

    A call that fails does not end training: the first failure is a warning.

    Args:
        name: Name of the logger, for messages.
        max_waiting: Calls that may wait.
    """

    def __init__(self, name: str, max_waiting: int = MAX_WAITING) -> None:
        self.name = name
        self.max_waiting = max_waiting
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._num_dropped = 0
        self._num_failed = 0
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], object]) -> None:
        """Have a call done after all earlier ones; returns at once."""
        self._begin()
        if self._calls.qsize() < self.max_waiting:
            self._calls.put(call)
            return
        self._num_dropped += 1
        if self._num_dropped == 1:
            _log.warning("%s does not keep up: what training logs from now on is not logged there", self.name)

    def end(self, last: Callable[[], object] | None = None) -> None:
        """End after all earlier calls and a last one, which is never dropped; returns at once, and ``finish`` waits."""
        if last is not None:
            self._begin()
            self._calls.put(last)
        if self._thread is not None:
            self._calls.put(None)

    def finish(self, seconds: float) -> bool:
        """Wait until all calls before ``end`` are done, at most for some seconds, and warn of what was not logged.

        Returns:
            Whether all are done.
        """
        is_done = True
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
            is_done, self._thread = not self._thread.is_alive(), None
        num_left = 0 if is_done else self._calls.qsize()  # with the present call, and without the mark of the end
        if num_left or self._num_dropped or self._num_failed > 1:
            _log.warning(
                "%s: not logged there: %d calls that failed, %d beyond its queue, %d left after %.0f s",
                *(self.name, self._num_failed, self._num_dropped, num_left, max(0.0, seconds)),
            )
        self._num_dropped = self._num_failed = 0
        return is_done

    def _begin(self) -> None:
        if self._thread is None:
            self._calls = queue.SimpleQueue()  # an earlier thread may hang, and goes on with its own calls
            self._thread = threading.Thread(
                target=self._work, args=(self._calls,), name=f"logger {self.name}", daemon=True
            )
            self._thread.start()

    def _work(self, calls: "queue.SimpleQueue[Callable[[], object] | None]") -> None:
        while (call := calls.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever a service's library raises
                self._num_failed += 1
                if self._num_failed == 1:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    _log.warning("%s: logging failed, and training goes on: %s", self.name, reason)
