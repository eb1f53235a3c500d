"""What went wrong in a run: steps and samples that were left out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdm.report.json_lines import read_json_lines

MAX_SHOWN = 100
"""Entries of each kind on the page, the last ones; all are counted."""
_MAX_CLIPS = 20


@dataclass(frozen=True)
class Listed:
    """The last entries of a list, and how many there are."""

    entries: list[dict[str, str]]
    number: int


def bad_steps_of(run: Path) -> Listed:
    """Return the steps that ``RUN/bad_steps.jsonl`` lists.

    Raises:
        ValueError: In one line, if the file can't be opened.
    """
    return _listed(run / "bad_steps.jsonl", _bad_step)


def bad_samples_of(run: Path) -> Listed:
    """Return the samples that ``RUN/quarantine.jsonl`` lists; errors are those of ``bad_steps_of``."""
    return _listed(run / "quarantine.jsonl", lambda fault: {key: _text(fault.get(key)) for key in _OF_SAMPLE})


_OF_SAMPLE = ("shard", "key", "reason")


def _listed(path: Path, describe: Callable[[dict[str, Any]], dict[str, str]]) -> Listed:
    last: list[dict[str, Any]] = []
    number = 0
    for entry in read_json_lines(path):
        last = [*last[-MAX_SHOWN + 1 :], entry]
        number += 1
    return Listed([describe(entry) for entry in last], number)


def _bad_step(report: dict[str, Any]) -> dict[str, str]:
    clips = report.get("clips")
    keys = [_text(clip.get("key")) for clip in clips if isinstance(clip, dict)] if isinstance(clips, list) else []
    more = f" and {len(keys) - _MAX_CLIPS} more" if len(keys) > _MAX_CLIPS else ""
    back_to = report.get("went_back_to")
    return {
        "step": _text(report.get("step")),
        "loss": _text(report.get("loss")),
        "gradient norm": _text(report.get("gradient_norm")),
        "then": "left out" if back_to is None else f"back to step {_text(back_to)}",
        "clips": ", ".join(keys[:_MAX_CLIPS]) + more,
    }


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)[:1000]
