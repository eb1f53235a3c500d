"""Storage that fails for a while: reading waits for it, within a limit, and loses nothing."""

import logging
import random
import time

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class StorageFailedError(ValueError):
    """Storage that did not come back; what was to be read may be whole."""


class Outage:
    """One time of waiting, which begins when ``wait`` is first called.

    Args:
        limit_seconds: How long the storage may fail.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._start: float | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def wait(self, error: OSError) -> None:
        """Sleep before the next attempt, each time for longer; the first time, the log says why.

        Args:
            error: What the storage says, with the name of the file.

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
        # Drawn out by up to a half, lest all processes come back at once.
        pause_seconds = self._pause_seconds * random.uniform(1.0, 1.5)
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        time.sleep(min(pause_seconds, self._limit_seconds - waited))
