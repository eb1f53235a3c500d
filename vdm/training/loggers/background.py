"""Loggers in threads of their own."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from vdm.training.loggers.base import LoggedVideo, RunLogger
from vdm.training.loggers.worker import Worker

_log = logging.getLogger(__name__)

CLOSE_SECONDS = 120.0
"""How long the end of training may wait for all loggers together."""


class Threaded(RunLogger):
    """A logger whose calls are done in a thread of its own.

    Args:
        name: Its name, for messages.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._worker = Worker(name)

    def end(self) -> None:
        """End after what waits has been logged; returns at once, and ``finish`` waits."""
        self._worker.end()

    def finish(self, seconds: float) -> None:
        """Wait for the end, at most for some seconds."""
        self._worker.finish(seconds)

    def close(self) -> None:
        """Log what waits, and end."""
        self.end()
        self.finish(CLOSE_SECONDS)


class InBackground(Threaded):
    """Calls a logger in a thread of its own, in the first process only; training never waits for it but at its end.

    Args:
        logger: The logger.
    """

    def __init__(self, logger: RunLogger) -> None:
        super().__init__(str(logger.name))
        self.logger = logger
        self._has_begun = False

    @property
    def name(self) -> str | None:
        """Name of the logger."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """Version of the logger."""
        return self.logger.version

    @property
    def save_dir(self) -> str | None:
        """Folder that the logger writes to."""
        return self.logger.save_dir

    @property
    def experiment(self) -> Any:
        """The service's own object, for a user's callbacks; None before ``begin`` and in all processes but the first.

        Lightning reads it when it sets up, before it is known at which step training begins.
        """
        return getattr(self.logger, "experiment", None) if self._has_begun else None

    def begin(self, config: Mapping[str, Any], step: int, is_rewound: bool) -> None:
        """Begin in the thread of training: services install handlers and threads of their own."""
        if rank_zero_only.rank == 0:
            try:
                self.logger.begin(config, step, is_rewound)
            except Exception as error:  # whatever a service's library raises
                reason = " ".join(str(error).split()) or type(error).__name__
                _log.warning("%s: logging can't begin, and training goes on without: %s", self.name, reason)
                return
            self._has_begun = True
            self._submit(partial(self.logger.catch_up, step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log settings."""
        self._submit(partial(self.logger.log_hyperparams, params, *args, **kwargs))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures."""
        self._submit(partial(self.logger.log_metrics, dict(metrics), step))

    def log_videos(self, name: str, videos: Sequence[LoggedVideo], step: int) -> None:
        """Log videos."""
        self._submit(partial(self.logger.log_videos, name, videos, step))

    def log_picture(self, name: str, file: Path, caption: str, step: int) -> None:
        """Log a picture."""
        self._submit(partial(self.logger.log_picture, name, file, caption, step))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table."""
        self._submit(partial(self.logger.log_table, name, columns, rows, step))

    def log_histogram(self, name: str, edges: Sequence[float], heights: Sequence[float], step: int) -> None:
        """Log bars."""
        self._submit(partial(self.logger.log_histogram, name, edges, heights, step))

    def log_checkpoint(self, folder: Path, step: int) -> None:
        """Note a checkpoint."""
        self._submit(partial(self.logger.log_checkpoint, folder, step))

    def go_back(self, step: int) -> None:
        """Note that training has gone back."""
        self._submit(partial(self.logger.go_back, step))

    def finalize(self, status: str) -> None:
        """Do nothing: ``close`` ends the logger, after everything has been logged."""

    def end(self) -> None:
        """End the logger after what waits has been logged."""
        self._worker.end(self.logger.close if self._has_begun else None)

    def _submit(self, call: Callable[[], object]) -> None:
        if self._has_begun:
            self._worker.submit(call)


class FiguresOnly(RunLogger):
    """Any logger of Lightning's interface, which takes figures and settings.

    Args:
        logger: The logger.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger

    @property
    def name(self) -> str | None:
        """Name of the logger."""
        return self.logger.name or type(self.logger).__name__

    @property
    def version(self) -> int | str | None:
        """Version of the logger."""
        return self.logger.version

    @property
    def save_dir(self) -> str | None:
        """Folder that the logger writes to."""
        return self.logger.save_dir

    @property
    def experiment(self) -> Any:
        """The service's own object."""
        return getattr(self.logger, "experiment", None)

    def begin(self, config: Mapping[str, Any], step: int, is_rewound: bool) -> None:
        """Log the configuration."""
        self.logger.log_hyperparams(dict(config))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log settings."""
        self.logger.log_hyperparams(params, *args, **kwargs)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures, and have them written: a run may be killed at any moment."""
        self.logger.log_metrics(dict(metrics), step)
        self.logger.save()

    def close(self) -> None:
        """Have the logger write what is left."""
        self.logger.finalize("success")


def as_run_logger(logger: Logger) -> RunLogger:
    """Return a logger, of this project's or of Lightning's interface, that runs in a thread of its own."""
    return InBackground(logger if isinstance(logger, RunLogger) else FiguresOnly(logger))


def close(loggers: Iterable[Logger]) -> None:
    """End the loggers, which share one deadline, so that the next job of a sweep begins new ones."""
    threaded = [logger for logger in loggers if isinstance(logger, Threaded)] if rank_zero_only.rank == 0 else []
    for logger in threaded:
        logger.end()
    deadline = time.monotonic() + CLOSE_SECONDS
    for logger in threaded:
        logger.finish(deadline - time.monotonic())
