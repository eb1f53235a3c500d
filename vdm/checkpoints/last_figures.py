"""The last figures that a run logged, from the end of its record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vdm.checkpoints.metrics_file import PLACE, latest_metrics

VALIDATION_LOSS = "val/loss"


@dataclass(frozen=True)
class LastFigures:
    """The last value of each figure, at steps that may differ.

    Args:
        step: Optimizer steps done when the last line was written; ``None`` without a line.
        time: Unix seconds at which it was written; ``None`` without a line.
        values: Figures by name; they may be NaN or infinite.
    """

    step: int | None = None
    time: float | None = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])


def last_figures(run: Path) -> LastFigures:
    """Return the last figures of a run; none if it has logged none.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    latest = latest_metrics(run, [VALIDATION_LOSS])
    if not latest:
        return LastFigures()
    time = latest["time"]
    return LastFigures(
        step=int(latest["step"]),
        time=time if 0 <= time < math.inf else None,
        values={name: value for name, value in latest.items() if name not in PLACE},
    )
