"""A thread that does a logger's work, so that training never waits for a server or a slow disk."""

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

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
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(max_waiting)
        self._num_dropped = 0
        self._num_failed = 0
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], object]) -> None:
        """Have a call done after all earlier ones; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"logger {self.name}", daemon=True)
            self._thread.start()
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._num_dropped += 1
            if self._num_dropped == 1:
                _log.warning("%s does not keep up: what training logs from now on is not logged there", self.name)

    def finish(self, seconds: float) -> bool:
        """Wait until all calls are done, at most for some seconds, and warn of what was not logged.

        Returns:
            Whether all are done.
        """
        is_done = True
        if self._thread is not None:
            with suppress(queue.Full):
                self._calls.put(None, timeout=seconds)
                self._thread.join(seconds)
            is_done, self._thread = not self._thread.is_alive(), None
        num_left = 0 if is_done else self._calls.qsize()
        if num_left or self._num_dropped or self._num_failed > 1:
            _log.warning(
                "%s: not logged there: %d calls that failed, %d beyond its queue, %d left after %.0f s",
                *(self.name, self._num_failed, self._num_dropped, num_left, seconds),
            )
        self._num_dropped = self._num_failed = 0
        return is_done

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever a service's library raises
                self._num_failed += 1
                if self._num_failed == 1:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    _log.warning("%s: logging failed, and training goes on: %s", self.name, reason)
