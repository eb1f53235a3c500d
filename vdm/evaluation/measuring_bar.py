"""The progress bar of a measurement: videos, and the steps of the sampler within a block of sampled videos."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_UPDATES = 0.5


class MeasuringBar:
    """Counts the videos that this process has read or sampled.

    Args:
        is_hidden: Whether nothing is shown; None shows it on terminals alone.
    """

    def __init__(self, is_hidden: bool | None) -> None:
        self._is_hidden = is_hidden
        self._bar = tqdm(disable=True)
        self._shown = 0.0

    @contextmanager
    def shown(self, num_videos: int) -> Iterator[None]:
        """Show the bar, which begins anew, during the block."""
        with tqdm(total=num_videos, desc="videos", unit="video", disable=self._is_hidden, delay=1) as self._bar:
            yield

    def video(self) -> None:
        """Advance by a video."""
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update()

    def step(self, number: int, total: int | None) -> None:
        """Show how far a block of videos is sampled.

        Args:
            number: Steps of the sampler that are done.
            total: All of its steps; None if they are not known in advance.
        """
        now = time.monotonic()
        if now - self._shown > _SECONDS_BETWEEN_UPDATES:
            self._bar.set_postfix_str(f"step {number}" if total is None else f"step {number} of {total}")
            self._shown = now
