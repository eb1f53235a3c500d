"""Stage filter, second half: limits on known and measured values of clips, and near duplicates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ConfigDict

from data_pipelines.duplicates import duplicates
from data_pipelines.manifest import ClipRow


@dataclass(frozen=True)
class Limits:
    """Minimum and maximum of a value, both included; None is no limit."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    min: float | None = None
    max: float | None = None

    def broken_by(self, value: float) -> str | None:
        """Return which limit a value breaks; None if it breaks none."""
        if self.min is not None and value < self.min:
            return f"below {self.min:g}"
        if self.max is not None and value > self.max:
            return f"above {self.max:g}"
        return None


KNOWN = ("shot_seconds", "source_fps", "source_height", "source_width")
"""Values of a clip that are known before it is measured; columns of ``ClipRow`` and names of limits."""


def value_of(row: ClipRow, name: str) -> float | None:
    """Return a known or measured value of a clip; None if it was not measured."""
    return float(getattr(row, name)) if name in KNOWN else row.scores.get(name)


def apply_limits(rows: Iterable[ClipRow], limits: Mapping[str, Limits]) -> list[ClipRow]:
    """Return all rows; those that break a limit are dropped, with the reason. Values not measured break no limit."""
    return [row if row.dropped else replace(row, dropped=_reason(row, limits)) for row in rows]


def _reason(row: ClipRow, limits: Mapping[str, Limits]) -> str | None:
    for name, limit in limits.items():
        value = value_of(row, name)
        if value is not None and (broken := limit.broken_by(value)):
            return f"{name} {broken}"
    return None


def drop_duplicates(rows: Sequence[ClipRow], max_bits: int | None) -> list[ClipRow]:
    """Return all rows; near duplicates are dropped, except the one with the largest picture."""
    places = [place for place, row in enumerate(rows) if row.dropped is None and row.perceptual_hash is not None]
    if max_bits is None:
        return list(rows)
    chosen = [rows[place] for place in places]
    found = duplicates(
        [row.perceptual_hash or b"" for row in chosen],
        [(row.source, row.shot) for row in chosen],
        [row.source_height * row.source_width for row in chosen],
        max_bits,
    )
    judged = list(rows)
    for clip, better in found.items():
        judged[places[clip]] = replace(chosen[clip], dropped=f"near duplicate of {chosen[better].key}")
    return judged
