"""A run in a few figures and words: its state, its tiles, where its time went, its starts and ends."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Float

from vdm.checkpoints.history import Event, whole_cost
from vdm.checkpoints.metrics_file import Series
from vdm.report.charts import OF_TIME
from vdm.report.run import ReportedRun

_WAITS = {"data_wait": "waiting for data", "checkpoint_wait": "waiting for checkpoints"}
_SPEEDS = ("perf/clips_per_second", "train/clips_per_second")


def max_steps_of(run: ReportedRun) -> int | None:
    """Return the number of steps that the run is meant to do; None if that is unknown or without end."""
    trainer = run.config.get("trainer")
    max_steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
    return max_steps if isinstance(max_steps, int) and max_steps > 0 else None


def tiles_of(run: ReportedRun) -> list[tuple[str, str]]:
    """Return labels and values of the run's most important figures."""
    max_steps = max_steps_of(run)
    of = f" of {max_steps:,}" if max_steps is not None else ""
    tiles = [("state", run.state), ("optimizer steps", f"{run.step:,}{of}")]
    position = max((int(one.positions[-1]) for one in run.figures.values() if len(one.positions)), default=-1)
    if position >= 0:
        tiles.append(("samples seen", f"{position:,}"))
    for name, label in (("train/loss", "training loss"), ("val/loss", "held-out loss")):
        if (value := latest(run, name)) is not None:
            tiles.append((label, f"{value:.4g}"))
    if (speed := next(filter(None, (_median(run, name) for name in _SPEEDS)), None)) is not None:
        tiles.append(("clips per second, median", f"{speed:.3g}"))
    if (seconds := _seconds(run)) > 0:
        tiles.append(("from first to last figure", duration(seconds)))
    if (restarts := sum(event.event == "start" for event in run.history) - 1) > 0:
        tiles.append(("restarts", f"{restarts}, at a cost of {duration(lost_seconds(run.history))}"))
    for number, label in ((run.bad_steps.number, "bad steps"), (run.bad_samples.number, "bad samples")):
        if number:
            tiles.append((label, f"{number:,}"))
    return tiles


def latest(run: ReportedRun, name: str) -> float | None:
    """Return the last finite value of a figure; None if there is none."""
    series = run.figures.get(name)
    finite = series.values[np.isfinite(series.values)] if series is not None else []
    return float(finite[-1]) if len(finite) else None


def _median(run: ReportedRun, name: str) -> float | None:
    series = run.figures.get(name)
    finite = series.values[np.isfinite(series.values)] if series is not None else []
    return float(np.median(finite)) if len(finite) else None


def _seconds(run: ReportedRun) -> float:
    times = np.concatenate([np.zeros(0), *(one.times[[0, -1]] for one in run.figures.values() if len(one.times))])
    times = times[np.isfinite(times)]
    return float(times.max() - times.min()) if len(times) else 0.0


def shares_of_time(run: ReportedRun) -> list[tuple[str, float]]:
    """Return shares of the time while the run was trained, by what it went to; none if it has not logged them."""
    starts = np.array([event.time for event in run.history if event.event == "start"])
    shares: dict[str, float] = {}
    for name, series in run.figures.items():
        if found := OF_TIME.fullmatch(name):
            label = _WAITS.get(found["what"], found["what"].replace("_", " "))
            shares[label] = float(np.clip(_mean_over_time(series, starts), 0, 1))
    if not shares:
        return []
    ordered = sorted(((label, share) for label, share in shares.items() if share > 0), key=lambda item: -item[1])
    return [("computing", max(0.0, 1 - sum(shares.values()))), *ordered]


def _mean_over_time(series: Series, starts: Float[np.ndarray, " s"]) -> float:
    """Return the mean of a figure, each value weighted by the time since the one before, or since training began."""
    before = np.concatenate([[-np.inf], series.times[:-1]])
    begun = np.concatenate([[-np.inf], starts])[np.searchsorted(starts, series.times)]
    since = np.maximum(before, begun)
    usable = np.isfinite(series.values) & np.isfinite(since) & (series.times > since)
    if not usable.any():
        finite = series.values[np.isfinite(series.values)]
        return float(finite.mean()) if len(finite) else 0.0
    return float(np.average(series.values[usable], weights=(series.times - since)[usable]))


def lost_seconds(history: Sequence[Event]) -> float:
    """Return the seconds without training before all restarts."""
    starts = [index for index, event in enumerate(history) if event.event == "start"]
    ends = [*starts[1:], len(history)]
    return sum(whole_cost(history[begin:end]) for begin, end in zip(starts[1:], ends[1:], strict=True))


def story_of(history: Sequence[Event]) -> list[dict[str, str]]:
    """Return starts, ends and rollbacks as rows of a table."""
    return [
        {
            "when": datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "what": event.event,
            "at step": "" if event.step is None else f"{event.step:,}",
            "more": "; ".join(_details(event)),
        }
        for event in history
        if event.event != "first_step"
    ]


def _details(event: Event) -> list[str]:
    details = [event.reason] if event.reason else []
    if event.from_step is not None:
        details.append(f"from step {event.from_step:,}")
    if event.host is not None:
        devices = f", {event.num_processes} process(es)" if event.num_processes else ""
        details.append(f"on {event.host}{devices}{f', {event.devices}' if event.devices else ''}")
    if event.resumed_from is not None:
        details.append(f"from {event.resumed_from}")
    if event.lost_steps:
        details.append(f"{event.lost_steps:,} steps repeated")
    if event.lost_seconds:
        details.append(f"{duration(event.lost_seconds)} without training")
    return details


def duration(seconds: float) -> str:
    """Return a length of time in the two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
