"""Figures of ``vdm evaluate`` and of metrics in training, from the ``results.json`` files of a run."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.records import checked, read_record

RESULTS_NAME = "results.json"
MAX_FILES = 1000
_STEP = re.compile(r"step=(\d+)")
_SCALARS = ("held_out_loss", "bits_per_dim")
"""Figures of the model itself that ``results.json`` has beside metrics of videos."""


class _Measurement(TypedDict):
    value: float
    interval: list[float] | None
    reliable: bool
    num_videos: int
    num_reference: NotRequired[int | None]
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One figure, and how it was made."""

    name: str
    step: int | None
    value: float
    interval: tuple[float, float] | None
    """95% interval by the bootstrap over clips."""
    reliable: bool
    num_videos: int | None
    num_reference: int | None
    protocol: Mapping[str, Any] | None
    file: str
    """Its file, from the run's folder."""


def measured_in(run: Path, faults: list[str]) -> list[Measured]:
    """Return all figures in order of steps and names; files that can't be read are added to ``faults``."""
    found: list[Measured] = []
    for file in sorted((run / "evaluation").rglob(RESULTS_NAME))[:MAX_FILES]:
        try:
            found += _of_file(run, file)
        except ValueError as error:
            faults.append(str(error))
    return sorted(found, key=lambda one: (one.step is None, one.step or 0, one.name))


class _Value(TypedDict):
    value: float


class _Results(TypedDict):
    metrics: dict[str, _Value]


def last_metric(run: Path, step: int) -> tuple[str, float] | None:
    """Return the name and the value of the first metric of the last measurement in training; ``None`` if there is none.

    Args:
        run: Folder of the run.
        step: Step of the run; what an abandoned branch of training measured after it does not count.

    Raises:
        ValueError: In one line, if the measurement can't be read.
    """
    named = ((folder, _STEP.fullmatch(folder.name)) for folder in (run / "evaluation").glob("step=*"))
    measured = [(int(found[1]), folder) for folder, found in named if found and int(found[1]) <= step]
    for _, folder in sorted(measured, reverse=True):
        file = folder / RESULTS_NAME
        if file.exists():
            metrics = read_record(file, _Results)["metrics"]
            if metrics:
                name, one = next(iter(metrics.items()))
                return name, one["value"]
    return None


def _of_file(run: Path, file: Path) -> list[Measured]:
    content = read_record(file, dict[str, Any])
    named = str(file.relative_to(run))
    place = _STEP.search(named) or _STEP.search(str(content.get("checkpoint", "")))
    step = int(place[1]) if place else None
    metrics = checked(content.get("metrics", {}), dict[str, _Measurement], file)
    for name, one in metrics.items():
        if not all(map(math.isfinite, (one["value"], *(one["interval"] or ())))):
            raise ValueError(f"{file}: metrics.{name}: is not finite")
    found = [_measured(name, step, one, named) for name, one in metrics.items()]
    for name in _SCALARS:
        value = content.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            clips = content.get("num_held_out_clips")
            count = clips if isinstance(clips, int) else None
            found.append(Measured(name, step, float(value), None, True, count, None, None, named))
    return found


def _measured(name: str, step: int | None, one: _Measurement, file: str) -> Measured:
    bounds = one["interval"]
    interval = (bounds[0], bounds[1]) if bounds is not None and len(bounds) == 2 else None
    protocol = one["protocol"]
    return Measured(
        name, step, one["value"], interval, one["reliable"], one["num_videos"], one.get("num_reference"), protocol, file
    )
