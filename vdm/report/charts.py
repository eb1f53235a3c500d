"""Which figures share a chart, and in which section of the page it stands."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Section = Literal["curves", "throughput"]

LEVELS = "/loss_by_level/"
"""Part of the names of losses by noise level, which have a section of their own."""
_ORDER = ("loss", "val/", "train/learning_rate", "train/grad_norm", "train/update_ratio", "train/", "perf/", "data/")
_OF_THROUGHPUT = ("perf/", "data/", "train/clips_per_second", "train/position")
_TOGETHER = {
    "train/loss": "loss",
    "val/loss": "loss",
}
OF_TIME = re.compile(r"(?:perf|train)/(?!peak)(?P<what>\w+)_fraction")
"""Names of shares of the time, by what it went to."""


@dataclass(frozen=True)
class Chart:
    """Figures that are drawn together."""

    title: str
    section: Section
    names: tuple[str, ...]


def charts_of(names: Iterable[str]) -> list[Chart]:
    """Return the charts of all figures but the losses by noise level, in the order of the page.

    The figure of a whole and those of its parts, such as ``train/grad_norm`` and ``train/grad_norm/GROUP``, share one.
    """
    together: dict[str, list[str]] = {}
    for name in sorted(dict.fromkeys(names)):
        if LEVELS not in name:
            together.setdefault(_title(name), []).append(name)
    charts = [Chart(title, _section(title), tuple(found)) for title, found in together.items()]
    return sorted(charts, key=lambda chart: (_rank(chart.title), chart.title))


def _title(name: str) -> str:
    if OF_TIME.fullmatch(name):
        return "perf/shares of time"
    return _TOGETHER.get(name, "/".join(name.split("/")[:2]))


def _section(title: str) -> Section:
    return "throughput" if title.startswith(_OF_THROUGHPUT) else "curves"


def _rank(title: str) -> int:
    return next((rank for rank, start in enumerate(_ORDER) if title.startswith(start)), len(_ORDER))
