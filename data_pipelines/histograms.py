"""Histograms of the scores with their limits, for choosing the limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.manifest import ClipRow
from data_pipelines.stages.limits import Limits, value_of
from vdm.files import replacing

_COLUMNS = 3
_KEPT, _DROPPED = "#3b6ea5", "#d9a441"


def draw_histograms(path: Path, rows: Sequence[ClipRow], limits: Mapping[str, Limits]) -> None:
    """Draw a histogram of each score over all clips that have it; values outside its limits have another colour."""
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


def _draw(axes: object, name: str, values: np.ndarray, limit: Limits) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    low = -np.inf if limit.min is None else limit.min
    high = np.inf if limit.max is None else limit.max
    is_kept = (values >= low) & (values <= high)
    spread = values[values > 0]
    is_wide = len(spread) > 1 and values.min() >= 0 and spread.max() > 8 * np.median(spread)
    is_share = 0 <= values.min() <= values.max() <= 1
    edges = np.histogram_bin_edges(values, 40, (0, 1) if is_share else None)
    if is_wide:  # a long tail: bins of growing width, with zeros in the first
        edges = np.concatenate([[0.0], np.geomspace(max(spread.min(), spread.max() / 1e4), spread.max() * 1.001, 40)])
        axes.set_xscale("symlog", linthresh=float(edges[1]))
    axes.hist([values[is_kept], values[~is_kept]], bins=edges.tolist(), stacked=True, color=[_KEPT, _DROPPED])
    for edge in (limit.min, limit.max):
        if edge is not None and edges[0] <= edge <= edges[-1]:
            axes.axvline(edge, color="black", linewidth=1, linestyle="--")
    limits = {"min": limit.min, "max": limit.max}
    within = ", ".join(f"{word} {edge:g}" for word, edge in limits.items() if edge is not None)
    axes.set_title(f"{name}: {within or 'no limit'}; drops {1 - is_kept.mean():.0%}", fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
