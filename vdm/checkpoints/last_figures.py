"""The last figures that a run logged, from the end of ``RUN/metrics.jsonl``, without reading the rest of it."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vdm.outside import parse_object
from vdm.regular_files import open_regular

METRICS_NAME = "metrics.jsonl"
TAIL_BYTES = 1 << 17
"""How much of the end of the file is read: some hundred lines."""
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
    """Return the last figures of a run; none if it has logged none. Lines that are cut off or damaged are left out.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    path = run / METRICS_NAME
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            *lines, _ = file.read(TAIL_BYTES).split(b"\n")  # the last one is being written, or empty
    except FileNotFoundError:
        return LastFigures()
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror or error}") from None
    return _of_lines(lines if size <= TAIL_BYTES else lines[1:])


def _of_lines(lines: list[bytes]) -> LastFigures:
    last: dict[str, object] = {}
    for line in lines:
        with suppress(ValueError):
            last |= parse_object(line.decode(), METRICS_NAME)
    values = {name: number for name, value in last.items() if (number := _number(value)) is not None}
    step, time = values.pop("step", -1.0), values.pop("time", -1.0)
    return LastFigures(
        step=int(step) if 0 <= step < 1 << 62 else None, time=time if 0 <= time < math.inf else None, values=values
    )


def _number(value: object) -> float | None:
    """Return a figure, of which those that are not finite are texts; ``None`` for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
