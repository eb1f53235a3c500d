"""Loss by noise level over steps, as a heat map."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vdm.checkpoints.metrics_file import Series
from vdm.report.charts import LEVELS

MAX_COLUMNS = 200
_NAME = re.compile(rf"(?P<split>\w+){LEVELS}t=(?P<low>\d\.\d+)-(?P<high>\d\.\d+)")


@dataclass(frozen=True)
class LevelMap:
    """Mean losses of clips whose noise level t lies in a bin, between two steps."""

    names: Sequence[str]
    """The figure of each bin, from low noise to high."""
    levels: Sequence[float]
    """The middle of each bin."""
    steps: Float[np.ndarray, " columns"]
    """The middle of each column."""
    losses: Float[np.ndarray, "bins columns"]
    """NaN where no clip had such a level."""


def level_maps(figures: Mapping[str, Series]) -> dict[str, LevelMap]:
    """Return the heat maps of a run by split: ``train``, ``val``."""
    found = sorted(filter(None, map(_NAME.fullmatch, figures)), key=lambda name: float(name["low"]))
    return {split: _map([name for name in found if name["split"] == split], figures) for split in _splits(found)}


def _splits(found: Sequence[re.Match[str]]) -> list[str]:
    return sorted({name["split"] for name in found})


def _map(names: Sequence[re.Match[str]], figures: Mapping[str, Series]) -> LevelMap:
    series = [figures[name[0]] for name in names]
    distinct = np.unique(np.concatenate([one.steps for one in series]))
    # Columns of equal width, or one for each step if there are few.
    if len(distinct) <= MAX_COLUMNS:
        middles = distinct.astype(np.float64)
        edges = np.concatenate([[-np.inf], (middles[1:] + middles[:-1]) / 2, [np.inf]])
    else:
        edges = np.linspace(distinct[0], distinct[-1] + 1, MAX_COLUMNS + 1)
        middles = (edges[1:] + edges[:-1]) / 2
    losses = np.stack([_means(one, edges) for one in series])
    levels = [(float(name["low"]) + float(name["high"])) / 2 for name in names]
    return LevelMap([name[0] for name in names], levels, middles, losses)


def _means(series: Series, edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " columns"]:
    finite = np.isfinite(series.values)
    columns = np.searchsorted(edges, series.steps[finite], side="right") - 1
    sums = np.bincount(columns, series.values[finite], len(edges) - 1)
    counts = np.bincount(columns, minlength=len(edges) - 1)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
