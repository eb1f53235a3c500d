"""Figures of runs that have no ``metrics.jsonl``: those that ``logger=csv`` wrote into ``RUN/logs``."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vdm.checkpoints.metrics_file import Series
from vdm.outside import read_text

MAX_BYTES = 1 << 28
_POSITION = "train/position"
UNKNOWN = -1
"""A position that is in no file."""


def read_csv_figures(run: Path) -> dict[str, Series]:
    """Return the figures in ``RUN/logs/*/metrics.csv`` by name.

    Times are NaN, since the file has none; positions are ``UNKNOWN`` if ``train/position`` is not among the figures.

    Each start of a run has a file of its own; a later one replaces what an earlier one has of the same steps.

    Raises:
        ValueError: In one line, if a file can't be read.
    """
    rows: list[tuple[int, dict[str, float]]] = []
    for file in sorted((run / "logs").glob("*/metrics.csv"), key=_number):
        found = list(_rows(file))
        first = min((step for step, _ in found), default=0)
        rows = [row for row in rows if row[0] < first] + found
    return {name: _series(rows, name) for name in dict.fromkeys(name for _, figures in rows for name in figures)}


def _number(file: Path) -> tuple[int, str]:
    found = re.search(r"\d+$", file.parent.name)
    return (int(found[0]) if found else -1, file.parent.name)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    try:
        for row in csv.DictReader(io.StringIO(read_text(file, MAX_BYTES))):
            figures = {name: number for name, text in row.items() if name and (number := _float(text)) is not None}
            step = figures.pop("step", np.nan)
            if 0 <= step < 1 << 62:  # not NaN
                yield int(step), figures
    except csv.Error as error:
        raise ValueError(f"{file}: can't be read as CSV: {error}") from None


def _float(text: object) -> float | None:
    """Return the number of a cell; None for an empty one, or half of one at the end of the file."""
    try:
        return float(text) if isinstance(text, str) and text else None
    except ValueError:
        return None


def _series(rows: list[tuple[int, dict[str, float]]], name: str) -> Series:
    having = [(step, figures[name]) for step, figures in rows if name in figures]
    steps = np.array([step for step, _ in having], np.int64)
    values = np.array([value for _, value in having])
    return Series(steps, np.full(len(steps), np.nan), _positions(rows, steps), values)


def _positions(rows: list[tuple[int, dict[str, float]]], steps: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return the positions at some steps, between those that are known; ``UNKNOWN`` if none is."""
    known = [(step, figures[_POSITION]) for step, figures in rows if 0 <= figures.get(_POSITION, np.nan) < 1 << 62]
    if not known:
        return np.full(len(steps), UNKNOWN)
    at, positions = (np.array(column) for column in zip(*known, strict=True))
    return np.interp(steps, at, positions).round().astype(np.int64)
