"""Figures that benchmarks print, and keep for one table of all of them."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = "VDM_FIGURES"
"""Variable that names the file where figures are kept, one a line."""


@dataclass(frozen=True)
class Figure:
    """What was measured of this project, beside another or alone.

    Args:
        benchmark: Name of the benchmark.
        case: Sizes and precision.
        what: What was measured, with its unit.
        ours: Of this project.
        theirs: Of what it is compared with.
        ratio: What counts: how many times as fast, or the share of memory.
        goal: What the ratio, or else our figure, should be, such as ``>= 1.3``.
    """

    benchmark: str
    case: str
    what: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    goal: str = ""

    def is_reached(self) -> bool:
        """Return whether the goal is reached."""
        relation, bound = self.goal.split()
        value = self.ours if self.ratio is None else self.ratio
        return value >= float(bound) if relation == ">=" else value <= float(bound)


def record(figure: Figure) -> None:
    """Print a figure, and keep it where ``make bench`` asks for it."""
    compared = "" if figure.theirs is None else f"  theirs {figure.theirs:.4g}"
    ratio = "" if figure.ratio is None else f"  ratio {figure.ratio:.2f}"
    goal = f"  ({figure.goal}: {'reached' if figure.is_reached() else 'missed'})" if figure.goal else ""
    print(f"{figure.case:24} {figure.what:28} ours {figure.ours:.4g}{compared}{ratio}{goal}", flush=True)
    if path := os.environ.get(RECORD):
        with Path(path).open("a") as file:
            file.write(json.dumps(asdict(figure)) + "\n")


def read(path: Path) -> list[Figure]:
    """Return the figures that were kept in a file."""
    return [Figure(**json.loads(line)) for line in path.read_text().splitlines()]


def table(figures: Iterable[Figure]) -> str:
    """Return figures as a table in Markdown."""
    lines = [
        "| benchmark | case | what | ours | theirs | ratio | goal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in figures:
        theirs, ratio = ("" if value is None else f"{value:.3g}" for value in (each.theirs, each.ratio))
        goal = f"{each.goal} {'✓' if each.is_reached() else '✗'}" if each.goal else ""
        lines.append(
            f"| {each.benchmark} | {each.case} | {each.what} | {each.ours:.3g} | {theirs} | {ratio} | {goal} |"
        )
    return "\n".join(lines) + "\n"
