"""What the loggers of a run take: figures, pictures, videos, tables, histograms and checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class LoggedVideo:
    """A sampled video of a run."""

    file: Path
    """An mp4 file."""
    caption: str
    reference: Path | None = None
    """The real video that shares its prompt, if there is one."""


class RunLogger(Logger):
    """A Lightning logger that takes more than figures; what a service can't show, its logger leaves out.

    The first process calls it alone: ``begin`` in the thread of training, all others in a thread of their own, in
    order; see ``InBackground``. A caller never asks which logger it has.
    """

    def begin(self, config: Mapping[str, Any], step: int, is_rewound: bool) -> None:
        """Begin to log, before the first step.

        Args:
            config: Whole configuration of the run, with the version of the code.
            step: Optimizer steps done so far; above 0 when a run goes on.
            is_rewound: Whether the run goes on from an earlier checkpoint than its latest, chosen by the user.
        """

    def catch_up(self, step: int) -> None:
        """Log what the run's own record has up to a step, and the service lacks; called after ``begin``."""

    def go_back(self, step: int) -> None:
        """Note that training has gone back to an earlier step, whose next steps see other samples than before."""

    def log_videos(self, name: str, videos: Sequence[LoggedVideo], step: int) -> None:
        """Log videos, of the same prompts and noise each time."""

    def log_picture(self, name: str, file: Path, caption: str, step: int) -> None:
        """Log a png file."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table of texts and numbers."""

    def log_histogram(self, name: str, edges: Sequence[float], heights: Sequence[float], step: int) -> None:
        """Log bars; over time they are a heat map.

        Args:
            name: Name on the dashboard.
            edges: Edges of the bars, one more than there are bars.
            heights: Height of each bar, at least 0.
            step: Optimizer steps done.
        """

    def log_checkpoint(self, folder: Path, step: int) -> None:
        """Note that a checkpoint is complete."""

    def close(self) -> None:
        """Write or send what is left, and end."""


def run_loggers(trainer: lightning.Trainer) -> list[RunLogger]:
    """Return a trainer's loggers, all of which ``as_run_logger`` has made run loggers; none in other processes."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)] if trainer.is_global_zero else []
