"""Histograms of the scores with their limits, for choosing the limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.manifest import ClipRow
from data_pipelines.stages.limits import Limits, value_of
from vdm.files import replacing

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.axes import Axes

_COLUMNS = 3
_NUM_BINS = 40
_KEPT, _DROPPED = "#3b6ea5", "#d9a441"
"""Blue and amber."""
_LONG_TAIL = 8
"""Values have a long tail if the largest exceeds so many medians of those above 0."""


def draw_histograms(path: Path, rows: Sequence[ClipRow], limits: Mapping[str, Limits]) -> None:
    """Draw a histogram of each score over all clips that have it; values outside its limits have another colour.

    Args:
        path: The PNG file; its folder is made.
        rows: Clips, dropped ones too.
        limits: Limits by the name of the score; scores without an entry are not drawn.
    """
    from matplotlib.figure import Figure

    values = {name: [v for row in rows if (v := value_of(row, name)) is not None] for name in limits}
    values = {name: np.array(found) for name, found in values.items() if found}
    num_rows = max(1, -(-len(values) // _COLUMNS))
    figure = Figure(figsize=(4 * _COLUMNS, 2.6 * num_rows), layout="constrained")
    for place, (name, found) in enumerate(values.items()):
        axes = figure.add_subplot(num_rows, _COLUMNS, place + 1)
        _draw(axes, name, found, limits[name])
    figure.suptitle(f"{len(rows)} clips; what the limits leave in blue", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:  # all tasks of a SLURM array draw it
        figure.savefig(file, format="png", dpi=80)


def _draw(axes: "Axes", name: str, values: np.ndarray, limit: Limits) -> None:
    is_kept = np.array([limit.broken_by(value) is None for value in values])
    edges, is_long_tailed = _bin_edges(values)
    if is_long_tailed:
        axes.set_xscale("symlog", linthresh=float(edges[1]))
    axes.hist([values[is_kept], values[~is_kept]], bins=edges.tolist(), stacked=True, color=[_KEPT, _DROPPED])
    for edge in (limit.min, limit.max):
        if edge is not None and edges[0] <= edge <= edges[-1]:
            axes.axvline(edge, color="black", linewidth=1, linestyle="--")
    bounds = {"min": limit.min, "max": limit.max}
    words = ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    axes.set_title(f"{name}: {words or 'no limit'}; drops {1 - is_kept.mean():.0%}", fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _bin_edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the edges of the bins, and whether the values have a long tail, for which bins grow in width."""
    above_zero = values[values > 0]
    if len(above_zero) > 1 and values.min() >= 0 and above_zero.max() > _LONG_TAIL * np.median(above_zero):
        first = max(above_zero.min(), above_zero.max() / 1e4)
        last = above_zero.max() * 1.001  # rounding must not put the largest value outside
        return np.concatenate([[0.0], np.geomspace(first, last, _NUM_BINS)]), True
    # Shares are drawn on the same axis, so that they can be compared.
    are_shares = 0 <= values.min() <= values.max() <= 1
    return np.histogram_bin_edges(values, _NUM_BINS, (0, 1) if are_shares else None), False
