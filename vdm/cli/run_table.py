"""The list of runs as a table for terminals, as JSON and as CSV."""

import csv
import json
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from tqdm.utils import disp_len, disp_trim

from vdm.cli.run_status import RunStatus
from vdm.json_values import spelled
from vdm.text import printable

_HEAD = ("run", "state", "step", "loss", "metric", "age", "size", "command")
_RIGHT = frozenset({"step", "loss", "age", "size"})
"""Columns that are aligned at the right."""
_LEFT_OUT = ("command", "size", "metric", "loss")
"""Columns that a narrow terminal leaves out, in this order."""
_GAP = "  "
_MIN_COMMAND = 20
"""Least width of the column of commands."""
_UNKNOWN = "-"
_AGES = ((365.25 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "min"))
_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def table(statuses: Sequence[RunStatus], folder: Path, width: int | None) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        statuses: The runs, in order.
        folder: Folder below which they lie; the table shows their paths from there.
        width: Columns of the terminal; ``None``: as wide as needed. Columns are left out before a line is cut.
    """
    rows = [_cells(status, folder) for status in statuses]
    names = list(_HEAD)
    widths = {name: max(disp_len(name), *(disp_len(row[name]) for row in rows)) for name in names}
    if width is not None:
        least = widths | {"command": min(widths["command"], _MIN_COMMAND)}
        for name in _LEFT_OUT:
            if sum(least[each] + len(_GAP) for each in names) - len(_GAP) > width:
                names.remove(name)
    for row in (dict(zip(_HEAD, _HEAD, strict=True)), *rows):
        cells = (_aligned(row[name], widths[name], name in _RIGHT) for name in names)
        line = _GAP.join(cells).rstrip()
        yield line if width is None or disp_len(line) <= width else f"{disp_trim(line, max(1, width - 1))}\u2026"


def as_json(statuses: Sequence[RunStatus], folder: Path) -> str:
    """Return the runs as a list of objects; numbers that are not finite are texts."""
    records = spelled([_record(status, folder) for status in statuses])
    return json.dumps(records, indent=1, allow_nan=False)


def as_csv(statuses: Sequence[RunStatus], folder: Path) -> str:
    """Return the runs as lines of CSV under a line of names."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, record in enumerate(_record(status, folder) for status in statuses):
        if number == 0:
            writer.writerow(record)
        writer.writerow("" if value is None else printable(value) for value in record.values())
    return text.getvalue().rstrip("\n")


def _record(status: RunStatus, folder: Path) -> dict[str, Any]:
    return {
        "run": _name(status.run, folder),
        "path": str(status.run),
        "state": status.state,
        "reason": status.reason,
        "step": status.step,
        "max_steps": status.max_steps,
        "loss": status.loss,
        "metric": status.metric,
        "value": status.value,
        "age_seconds": None if status.age is None else round(status.age, 1),
        "bytes": status.num_bytes,
        "starts": status.num_starts,
        "command": status.command,
    }


def _cells(status: RunStatus, folder: Path) -> dict[str, str]:
    steps = _UNKNOWN if status.step is None else str(status.step)
    metric = _UNKNOWN
    if status.metric is not None and status.value is not None:
        metric = f"{printable(status.metric, 40)} {status.value:.4g}"
    return {
        "run": _name(status.run, folder),
        "state": status.state,
        "step": steps if status.max_steps is None else f"{steps}/{status.max_steps}",
        "loss": _UNKNOWN if status.loss is None else f"{status.loss:.4g}",
        "metric": metric,
        "age": _UNKNOWN if status.age is None else _rounded(status.age, _AGES, "s"),
        "size": _rounded(status.num_bytes, _SIZES, "B"),
        "command": printable(status.command or _UNKNOWN),
    }


def _name(run: Path, folder: Path) -> str:
    relative = run.relative_to(folder)
    return printable(run.resolve().name if relative == Path() else relative)


def _aligned(text: str, width: int, is_right: bool) -> str:
    space = " " * (width - disp_len(text))
    return space + text if is_right else text + space


def _rounded(number: float, units: Sequence[tuple[float, str]], smallest: str) -> str:
    """Return a number in the largest unit of which there is at least one."""
    for size, unit in units:
        if number >= size:
            count = number / size
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{number:.0f} {smallest}"
