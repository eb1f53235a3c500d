"""What is known of a run without opening its checkpoints: whether it trains, how far it is, and its last figures."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vdm.checkpoints.history import Event, latest_start, read_history
from vdm.checkpoints.last_figures import VALIDATION_LOSS, LastFigures, last_figures
from vdm.checkpoints.layout import CONFIG_NAME, checkpoints_of, step_of
from vdm.cli.run_search import folder_size
from vdm.credentials import without_credentials
from vdm.outside import read_yaml, typed
from vdm.report.measured import last_metric
from vdm.text import printable
from vdm.training.run_lock import LockReading, read_lock

State = Literal["training", "finished", "stopped", "failed", "killed", "unknown"]
_STATES: dict[str, State] = {"finish": "finished", "stop": "stopped", "fail": "failed"}
"""States by the last event."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run as ``vdm runs`` lists it; ``None`` stands for what is not known.

    Args:
        run: Folder of the run.
        state: ``training``: its process lives. ``killed``: it does not, and has recorded no end. ``unknown``: of runs
            that earlier versions trained, and of imported ones.
        reason: Why it ended, in one line.
        step: Optimizer steps done.
        max_steps: Optimizer steps of the whole run.
        loss: Last training loss; may be NaN or infinite.
        metric: Name of the last metric of sampled videos, else ``loss``, that of validation.
        value: Its value; may be NaN or infinite.
        alive: Unix seconds of the last sign of life.
        num_bytes: Size of all files in the run's folder.
        num_starts: How often training began.
        command: Command line of the first start, which says most of the run.
    """

    run: Path
    state: State
    reason: str | None
    step: int | None
    max_steps: int | None
    loss: float | None
    metric: str | None
    value: float | None
    alive: float | None
    num_bytes: int
    num_starts: int
    command: str | None

    @property
    def age(self) -> float | None:
        """Seconds since the last sign of life."""
        return None if self.alive is None else max(0.0, time.time() - self.alive)


def status_of(run: Path) -> RunStatus:
    """Look up the status of a run; of what is damaged there is a warning, and the rest is told."""
    lock = read_lock(run)
    events = _events(run)
    figures = _figures(run)
    starts = [event for event in events if event.event == "start"]
    steps = [step_of(folder) for folder in checkpoints_of(run)]
    steps += [step for step in (figures.step, *(event.step for event in latest_start(events))) if step is not None]
    step = max(steps, default=None)
    max_steps = starts[-1].max_steps if starts else _configured_steps(run)
    signs = [figures.time, *(event.time for event in events), None if lock is None else lock.alive]
    metric, value = _metric(run, step, figures) or (None, None)
    return RunStatus(
        run=run,
        state=_state(events, lock, step is not None and max_steps is not None and 0 < max_steps <= step),
        reason=without_credentials(events[-1].reason) if events else None,
        step=step,
        max_steps=max_steps,
        loss=figures.values.get("train/loss"),
        metric=metric,
        value=value,
        alive=max((sign for sign in signs if sign is not None), default=None),
        num_bytes=folder_size(run),
        num_starts=len(starts),
        command=without_credentials(starts[0].command) if starts else None,
    )


def _state(events: Sequence[Event], lock: LockReading | None, is_complete: bool) -> State:
    if lock is not None and lock.is_held:
        return "training"
    if events:
        return _STATES.get(events[-1].event, "killed")
    if is_complete:
        return "finished"
    return "unknown" if lock is None or lock.is_released else "killed"


def _events(run: Path) -> list[Event]:
    try:
        return read_history(run)
    except ValueError as error:
        _log.warning("%s", printable(error))
        return []


def _figures(run: Path) -> LastFigures:
    try:
        return last_figures(run)
    except ValueError as error:
        _log.warning("%s", printable(error))
        return LastFigures()


def _metric(run: Path, step: int | None, figures: LastFigures) -> tuple[str, float] | None:
    """Return name and value of the last metric of sampled videos, else of the validation loss."""
    try:
        found = None if step is None else last_metric(run, step)
    except ValueError as error:
        _log.warning("%s", printable(error))
        found = None
    loss = figures.values.get(VALIDATION_LOSS)
    return found or (None if loss is None else ("loss", loss))


@dataclass(frozen=True)
class _Trainer:
    max_steps: Annotated[int, Field(le=1 << 62)] | None = None


@dataclass(frozen=True)
class _Config:
    """The key of a recorded configuration that is read here."""

    trainer: _Trainer = field(default_factory=_Trainer)


def _configured_steps(run: Path) -> int | None:
    """Return the steps that the configuration of a run without a history asks for."""
    path = run / CONFIG_NAME
    try:
        steps = typed(_Config, read_yaml(path), path).trainer.max_steps
    except ValueError as error:
        _log.warning("%s", printable(error))
        return None
    return None if steps is None or steps < 0 else steps
