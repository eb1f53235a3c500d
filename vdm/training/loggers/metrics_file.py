"""The run's own record of its figures, whatever its other loggers."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from vdm.checkpoints.metrics_file import METRICS_NAME, cut_back, metrics_line
from vdm.training.loggers.background import Threaded

MAX_PENDING_BYTES = 1 << 26
"""Lines that are kept while the disk is full."""


class MetricsFile(Threaded):
    """Appends to ``RUN/metrics.jsonl``. While the disk is full or away, lines are kept and written later.

    Args:
        run: Folder of the run.
        position: Returns the number of samples that training has seen.
    """

    def __init__(self, run: Path, position: Callable[[], int]) -> None:
        super().__init__(METRICS_NAME)
        self.run = run
        self._position = position
        self._pending = b""

    @property
    def name(self) -> str:
        """Name of the file."""
        return METRICS_NAME

    @property
    def version(self) -> str:
        """Nothing: a run has one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.run)

    def begin(self, config: Mapping[str, Any], step: int, is_rewound: bool) -> None:
        """Cut off what an earlier start logged after the step at which training begins."""
        self.go_back(step)

    def go_back(self, step: int) -> None:
        """Cut off later steps."""
        self._worker.submit(partial(cut_back, self.run, step))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in ``config.yaml``."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line."""
        if rank_zero_only.rank == 0 and step is not None:
            line = metrics_line(step, time.time(), self._position(), metrics)
            self._worker.submit(partial(self._append, line))

    def _append(self, line: bytes) -> None:
        """Write what could not be written before, and a line."""
        if len(self._pending) + len(line) <= MAX_PENDING_BYTES:
            self._pending += line
        file = os.open(self.run / METRICS_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while self._pending:
                self._pending = self._pending[os.write(file, self._pending) :]
        finally:
            os.close(file)
