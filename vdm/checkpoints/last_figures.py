"""The last figures that a run logged, from the end of its record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vdm.checkpoints.metrics_file import PLACE, latest_metrics

_LOSS = "val/loss"


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

    @property
    def metric(self) -> tuple[str, float] | None:
        """Name, without ``val/``, and value of the last metric of sampled videos, else of the validation loss."""
        names = [name for name in self.values if name.startswith("val/") and not name.startswith(_LOSS)]
        name = next(iter(names), _LOSS)
        return (name.removeprefix("val/"), self.values[name]) if name in self.values else None


def last_figures(run: Path) -> LastFigures:
    """Return the last figures of a run; none if it has logged none.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    latest = latest_metrics(run)
    if not latest:
        return LastFigures()
    time = latest["time"]
    return LastFigures(
        step=int(latest["step"]),
        time=time if 0 <= time < math.inf else None,
        values={name: value for name, value in latest.items() if name not in PLACE},
    )
