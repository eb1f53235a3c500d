"""Loggers in threads of their own, at the end of training."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from vdm.checkpoints.metrics_file import latest_metrics
from vdm.training.loggers import background
from vdm.training.loggers.background import as_run_logger, close
from vdm.training.loggers.base import RunLogger
from vdm.training.loggers.metrics_file import MetricsFile


class Hanging(RunLogger):
    """A logger whose service never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    @property
    def name(self) -> str:
        """Its name."""
        return "hanging"

    @property
    def version(self) -> str:
        """None."""
        return ""

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Take nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Wait for the service."""
        self.gate.wait()


def test_loggers_that_hang_share_one_deadline_and_keep_no_other_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0.5)
    hanging = [Hanging() for _ in range(4)]
    loggers = [*map(as_run_logger, hanging), MetricsFile(tmp_path, lambda: 0)]
    for logger in loggers:
        logger.begin({}, 0, False)
        logger.log_metrics({"train/loss": 1.0}, 1)
    started = time.monotonic()
    close(loggers)
    assert 0.5 <= time.monotonic() - started < 1.5
    assert latest_metrics(tmp_path)["train/loss"] == 1.0
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == ["hanging"] * 4
    assert "2 left" in lines[0]  # the figures, and the logger's own end
    for one in hanging:
        one.gate.set()
