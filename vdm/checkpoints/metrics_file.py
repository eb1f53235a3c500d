"""``RUN/metrics.jsonl``: the figures that a run logs, one JSON object a line, whatever its loggers.

A line has ``step`` (optimizer steps done), ``time`` (Unix seconds), ``position`` (samples seen) and figures by name,
such as ``train/loss``. Figures that are not finite are the texts ``NaN``, ``Infinity`` and ``-Infinity``. Lines are in
order of steps: a run that goes on from a checkpoint cuts off what it had logged after it.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vdm.json_values import parse_json, spelled, whole_number
from vdm.regular_files import open_regular

METRICS_NAME = "metrics.jsonl"
MAX_LINE_BYTES = 1 << 20
"""A longer line is none of ours."""
_TAIL_BYTES = 1 << 18
_SEARCHED_BYTES = 1 << 26
"""Bytes at the end of the file in which a figure is looked for that the last ones lack."""
PLACE = {"step", "time", "position"}
"""What a line has beside figures."""
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Series:
    """The values of a figure in order of steps."""

    steps: Int[np.ndarray, " n"]
    times: Float[np.ndarray, " n"]
    """Unix seconds."""
    positions: Int[np.ndarray, " n"]
    """Samples seen."""
    values: Float[np.ndarray, " n"]


@dataclass
class _Columns:
    steps: list[int] = field(default_factory=list[int])
    times: list[float] = field(default_factory=list[float])
    positions: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])


def metrics_line(step: int, time: float, position: int, figures: Mapping[str, float]) -> bytes:
    """Return a line of the file."""
    place = {"step": step, "time": round(time, 3), "position": position}
    # The place stands first, and again last: a figure of such a name would hide it.
    return json.dumps({**place, **spelled(figures), **place}).encode() + b"\n"


def metrics_lines(run: Path, last_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run, passing over damaged ones; ``last_bytes`` reads the end of the file alone.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    path = run / METRICS_NAME
    try:
        with open_regular(path) as file:
            if last_bytes is not None and os.fstat(file.fileno()).st_size > last_bytes:
                file.seek(-last_bytes, os.SEEK_END)
            for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                line = _parsed(raw)
                if line is not None:
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from None


def read_metrics(run: Path) -> dict[str, Series]:
    """Return the figures of a run by name; none if it has logged nothing.

    Lines that are damaged, such as one that a killed run began, are passed over.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    columns: dict[str, _Columns] = {}
    for line in metrics_lines(run):
        for name in line.keys() - PLACE:
            of = columns.setdefault(name, _Columns())
            of.steps.append(line["step"])
            of.times.append(line["time"])
            of.positions.append(line["position"])
            of.values.append(line[name])
    return {
        name: Series(
            np.array(of.steps, np.int64), np.array(of.times), np.array(of.positions, np.int64), np.array(of.values)
        )
        for name, of in columns.items()
    }


def latest_metrics(run: Path, sought: Sequence[str] = ()) -> dict[str, float]:
    """Return the latest value of each figure, with ``step``, ``time`` and ``position``, from the end of the file alone.

    Args:
        run: Folder of the run.
        sought: Figures that may be rare, and are looked for further from the end than the others.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    latest: dict[str, Any] = {}
    for line in metrics_lines(run, _TAIL_BYTES):
        latest |= line
    for name in sought:
        if latest and name not in latest and (value := _latest_value(run, name)) is not None:
            latest[name] = value
    return latest


def _latest_value(run: Path, name: str) -> float | None:
    """Return the latest value of a figure, reading the file from its end on."""
    needle = json.dumps(name).encode()
    with open_regular(run / METRICS_NAME) as file:
        size = end = os.fstat(file.fileno()).st_size
        rest = b""
        while end > max(0, size - _SEARCHED_BYTES):
            begin = max(0, end - _TAIL_BYTES)
            file.seek(begin)
            block = file.read(end - begin) + rest
            rest, _, whole = block.partition(b"\n") if begin > 0 else (b"", b"", block)
            for raw in reversed(whole.split(b"\n")) if needle in whole else ():
                line = _parsed(raw) if needle in raw else None
                if line is not None and name in line:
                    return line[name]
            rest, end = rest[:MAX_LINE_BYTES], begin
    return None


def cut_back(run: Path, step: int) -> None:
    """Remove the lines of steps after ``step``, and a line that is incomplete.

    Raises:
        OSError: If the file can't be changed.
    """
    path = run / METRICS_NAME
    if not path.exists():
        return
    with path.open("r+b") as file:
        kept = 0
        for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
            line = _parsed(raw)
            if line is not None and line["step"] > step:
                break
            if raw.endswith(b"\n"):
                kept = file.tell()
        file.truncate(kept)


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Return the content of a line, its figures as they were logged; None if it is damaged."""
    try:
        line: Any = parse_json(raw)
        step, time, position = line["step"], line["time"], line["position"]
        counts = [whole_number(count, 0, 1 << 62) for count in (step, position)]
        figures = {name: _figure(value) for name, value in line.items() if name not in PLACE}
        return {"step": counts[0], "time": _figure(time), "position": counts[1], **figures}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _figure(value: Any) -> float:
    if isinstance(value, str):
        return _NOT_FINITE[value]
    if isinstance(value, bool):
        raise TypeError("no figure")
    return float(value)
