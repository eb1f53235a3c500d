"""When reading is repeated: the one policy for all storage.

1. A request that fails is repeated after short pauses (``request``).
2. Bytes that came over a network and fail their check are read once more (``checked``).
3. If requests still fail, the items that failed wait for the storage, within a limit (``batch``).

``request`` never repeats one for a file that is missing, not a regular file, or may not be read: waiting a few seconds
does not help there. ``batch`` does wait for a file that may not be read, as network storage may refuse for a while.
Clients of remote storage may repeat a request by themselves. For this policy that is one request, which the time-out of
``RemoteFolder`` bounds.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from vdm.regular_files import UnfitFileError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
T = TypeVar("T")
Data = TypeVar("Data")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
_NEVER_REPEATED = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, UnfitFileError)


class StorageFailedError(ValueError):
    """Storage that did not come back within the limit; the data may be undamaged."""


def request(
    attempt: Callable[[], T], pauses_seconds: Sequence[float], before_repeat: Callable[[], None] | None = None
) -> T:
    """Return the result of ``attempt``, which is repeated after a passing ``OSError``; others are raised at once.

    Args:
        attempt: Sends the request.
        pauses_seconds: Pause before each repetition, each drawn out by up to a half; their number is that of the
            repetitions.
        before_repeat: Called before each pause, such as to close a file.

    Raises:
        OSError: That of the last attempt, or one that does not pass.
    """
    for pause_seconds in pauses_seconds:
        try:
            return attempt()
        except _NEVER_REPEATED:
            raise
        except OSError:
            if before_repeat is not None:
                before_repeat()
            time.sleep(_spread(pause_seconds))
    return attempt()


def checked(read: Callable[[], Data], check: Callable[[Data], T]) -> tuple[Data, T]:
    """Return what ``read`` returns and what ``check`` makes of it; data that fail the check are read once more.

    Raises:
        ValueError: That of the second check.
    """
    data = read()
    try:
        return data, check(data)
    except ValueError:
        data = read()
        return data, check(data)


def batch(
    attempt: Callable[[Sequence[Item]], list[T | OSError]], items: Sequence[Item], patience_seconds: float
) -> list[T]:
    """Return the results of ``attempt`` for all items; items for which the storage fails are attempted again.

    Args:
        attempt: Takes some of the items, and returns a result or an error of the storage for each.
        items: What is to be read.
        patience_seconds: How long to wait for the storage, from its first error on.

    Raises:
        StorageFailedError: In one line, if any item still fails after that.
    """
    found: dict[int, T] = {}
    todo: Sequence[int] = range(len(items))
    outage = _Outage(patience_seconds)
    while todo:
        failures: dict[int, OSError] = {}
        for number, outcome in zip(todo, attempt([items[number] for number in todo]), strict=True):
            if isinstance(outcome, OSError):
                failures[number] = outcome
            else:
                found[number] = outcome
        todo = list(failures)
        if failures:
            outage.wait(failures[todo[0]])
    return [found[number] for number in range(len(items))]


class _Outage:
    """One failure of the storage, from the first call of ``wait`` on.

    Args:
        limit_seconds: How long the storage may fail.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._start: float | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def wait(self, error: OSError) -> None:
        """Sleep before the next attempt, each time for longer; log the reason the first time.

        Args:
            error: The storage's error, with the name of the file.

        Raises:
            StorageFailedError: In one line, if the limit is reached.
        """
        reason = " ".join(str(error).split())
        if self._start is None:
            self._start = time.monotonic()
            logger.warning("Storage fails, waiting up to %g s for it: %s", self._limit_seconds, reason)
        waited = time.monotonic() - self._start
        if waited >= self._limit_seconds:
            raise StorageFailedError(
                f"{reason}; storage has failed for {waited:.0f} s. No sample was left out: once it is back, the run "
                "resumes exactly from its last checkpoint"
            )
        pause_seconds = _spread(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        time.sleep(min(pause_seconds, self._limit_seconds - waited))


def _spread(seconds: float) -> float:
    """Return a pause that is longer by a random share of up to a half, so that processes do not retry together."""
    return seconds * random.uniform(1.0, 1.5)
