"""Curves on the page: figures of a run over its steps, thinned out so that 100,000 steps fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vdm.checkpoints.metrics_file import Series

MAX_BUCKETS = 1000
"""Points of a curve, at most; each stands for its mean, its lowest and its highest value: 2000 extreme values."""
MIN_BUCKETS = 50
MAX_CURVE_BYTES = 4 << 20
"""What the curves of all runs may take of the page."""
_BYTES_OF_NUMBER = 9
_DIGITS = 6


@dataclass(frozen=True)
class Axis:
    """What several curves share: where their points lie."""

    steps: Float[np.ndarray, " n"]
    seconds: Float[np.ndarray, " n"]
    """Since the first figure of the run; NaN where unknown."""
    positions: Float[np.ndarray, " n"]
    """Samples seen; NaN where unknown."""


@dataclass(frozen=True)
class Curve:
    """A figure over steps. Without ``low`` and ``high``, each point is one logged value."""

    axis: int
    """Its place among the run's axes."""
    mean: Float[np.ndarray, " n"]
    """NaN where no value is finite."""
    low: Float[np.ndarray, " n"] | None
    high: Float[np.ndarray, " n"] | None
    num_values: int
    num_not_finite: int


@dataclass(frozen=True)
class Curves:
    """All curves of a run."""

    axes: Sequence[Axis]
    by_name: Mapping[str, Curve]
    is_thinned: bool


def num_buckets(num_curves: int) -> int:
    """Return how many points a curve may have, for ``num_curves`` in all runs of the page."""
    allowed = MAX_CURVE_BYTES // (3 * _BYTES_OF_NUMBER * max(1, num_curves))
    return int(np.clip(allowed, MIN_BUCKETS, MAX_BUCKETS))


def thin_out(series: Mapping[str, Series], max_points: int) -> Curves:
    """Return curves of no more than ``max_points`` points.

    Longer series are cut into ``max_points`` buckets of nearly equally many values. Mean, lowest and highest value of
    each bucket are kept, so that no spike gets lost. Figures that were logged together share an axis.
    """
    start = min((one.times[0] for one in series.values() if len(one.times)), default=np.nan)
    axes: list[Axis] = []
    known: dict[tuple[bytes, bytes], int] = {}
    curves: dict[str, Curve] = {}
    for name, one in series.items():
        key = (one.steps.tobytes(), one.times.tobytes())
        edges = _edges(len(one.steps), max_points)
        if key not in known:
            known[key] = len(axes)
            last = edges[1:] - 1
            positions = np.where(one.positions >= 0, one.positions, np.nan)
            axes.append(Axis(one.steps[last].astype(np.float64), one.times[last] - start, positions[last]))
        curves[name] = _curve(known[key], one.values, edges)
    return Curves(axes, curves, any(curve.low is not None for curve in curves.values()))


def _edges(length: int, max_points: int) -> Int[np.ndarray, " m"]:
    """Return where buckets begin, and the end of the last one."""
    if length <= max_points:
        return np.arange(length + 1)
    return np.linspace(0, length, max_points + 1).round().astype(np.int64)


def _curve(axis: int, values: Float[np.ndarray, " n"], edges: Int[np.ndarray, " m"]) -> Curve:
    finite: Bool[np.ndarray, " n"] = np.isfinite(values)
    num_not_finite = int((~finite).sum())
    if len(edges) == len(values) + 1:
        return Curve(axis, np.where(finite, values, np.nan), None, None, len(values), num_not_finite)
    begins = edges[:-1]
    counts = np.add.reduceat(finite.astype(np.int64), begins)
    sums = np.add.reduceat(np.where(finite, values, 0.0), begins)
    mean = np.divide(sums, counts, out=np.full(len(begins), np.nan), where=counts > 0)
    low = np.minimum.reduceat(np.where(finite, values, np.inf), begins)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), begins)
    empty = counts == 0
    low[empty] = high[empty] = np.nan
    return Curve(axis, mean, low, high, len(values), num_not_finite)


def numbers(values: Float[np.ndarray, " n"]) -> list[float | None]:
    """Return plain numbers of six digits, None for NaN."""
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values.tolist()]


def whole_numbers(values: Float[np.ndarray, " n"]) -> list[int | None]:
    """Return plain whole numbers, None for NaN."""
    return [round(value) if np.isfinite(value) else None for value in values.tolist()]
