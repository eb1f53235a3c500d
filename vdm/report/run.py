"""What the report reads of a run. A part that is missing or damaged does not keep the others from being shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vdm.checkpoints.history import Event, read_history
from vdm.checkpoints.layout import checkpoints_of, run_folder, step_of
from vdm.checkpoints.metrics_file import METRICS_NAME, Series, read_metrics
from vdm.checkpoints.run_record import Versions, load_config, versions_of
from vdm.credentials import without_credentials
from vdm.report.csv_figures import read_csv_figures
from vdm.report.faults import Listed, bad_samples_of, bad_steps_of
from vdm.report.measured import Measured, measured_in
from vdm.report.samples import Samples, samples_of
from vdm.report.settings import flat

Value = TypeVar("Value")


@dataclass(frozen=True)
class ReportedRun:
    """A run, as far as it can be read."""

    folder: Path
    name: str
    """Unique among the runs of a page."""
    state: str
    """Such as ``training`` or ``killed``."""
    reason: str | None
    """Why it ended, in one line."""
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    """Values of the configuration by dotted key."""
    figures: Mapping[str, Series]
    samples: Samples
    measured: Sequence[Measured]
    history: Sequence[Event]
    bad_steps: Listed
    bad_samples: Listed
    versions: Sequence[Versions]
    """One entry for each start."""
    saved_steps: Sequence[int]
    """Steps of the checkpoints."""
    unreadable: Sequence[str]
    """What could not be read, in one line each."""

    @property
    def step(self) -> int:
        """The last step of which something is known."""
        logged = [int(one.steps[-1]) for one in self.figures.values() if len(one.steps)]
        told = [event.step for event in self.history[-1:] if event.step is not None]
        return max([*logged, *told, *self.saved_steps[-1:]], default=0)


def read_run(folder: Path, name: str, state: str, reason: str | None = None) -> ReportedRun:
    """Read a run.

    Args:
        folder: Its folder.
        name: Its name on the page.
        state: Its state, which the lock on its folder tells.
        reason: Why it ended, if that is known.

    Raises:
        ValueError: In one line, if the folder is not that of a run, or its configuration can't be read.
    """
    run = run_folder(folder)
    config = without_credentials(load_config(run))
    faults: list[str] = []

    def read(what: Callable[[Path], Value], otherwise: Value) -> Value:
        try:
            return what(run)
        except ValueError as error:
            faults.append(str(error))
            return otherwise

    nothing = Listed([], 0)
    return ReportedRun(
        folder=run,
        name=name,
        state=state,
        reason=reason,
        config=config,
        settings=flat(config),
        figures=read(_figures, {}),
        samples=read(samples_of, Samples([], [])),
        measured=measured_in(run, faults),
        history=read(read_history, []),
        bad_steps=read(bad_steps_of, nothing),
        bad_samples=read(bad_samples_of, nothing),
        versions=read(versions_of, []),
        saved_steps=[step_of(checkpoint) for checkpoint in checkpoints_of(run)],
        unreadable=faults,
    )


def _figures(run: Path) -> dict[str, Series]:
    """Return a run's figures; those that an earlier version logged before the run's own record began, from its CSV."""
    if not (run / METRICS_NAME).exists():
        return read_csv_figures(run)
    recorded = read_metrics(run)
    begun = min((int(series.steps[0]) for series in recorded.values()), default=0)
    if begun <= 1:
        return recorded
    before = {name: _up_to(series, begun) for name, series in read_csv_figures(run).items()}
    return {name: _joined(*(of[name] for of in (before, recorded) if name in of)) for name in before | recorded}


def _up_to(series: Series, step: int) -> Series:
    """Return the part of a series before a step."""
    kept = series.steps < step
    return Series(series.steps[kept], series.times[kept], series.positions[kept], series.values[kept])


def _joined(*parts: Series) -> Series:
    columns = zip(*((part.steps, part.times, part.positions, part.values) for part in parts), strict=True)
    return Series(*map(np.concatenate, columns))
