"""Where the time of a run goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """Measures what interrupts training, such as validation and sampling, apart from training itself."""

    def __init__(self) -> None:
        self.seconds = {"validation": 0.0, "sampling": 0.0, "measuring": 0.0}
        """Time of each interruption so far, by name."""

    @contextmanager
    def interruption(self, name: str) -> Iterator[None]:
        """Count the time that the context lasts as an interruption."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count some time as an interruption."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
