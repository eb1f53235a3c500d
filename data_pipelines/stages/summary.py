"""The line that is printed after a stage."""

from collections import Counter
from collections.abc import Sequence

from data_pipelines.manifest import ClipRow, VideoRow


def summary(stage: str, rows: Sequence[VideoRow | ClipRow], more: str = "") -> str:
    """Return how many rows a stage had, kept and dropped, with the reasons."""
    unit = "files" if rows and isinstance(rows[0], VideoRow) else "clips"
    dropped = [row.dropped for row in rows if row.dropped is not None]
    line = f"{stage:8}{unit}: {len(rows)}"
    if dropped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(map(_kind, dropped)).most_common())
        line += f", kept: {len(rows) - len(dropped)}, dropped: {len(dropped)} ({reasons})"
    return f"{line}; {more}" if more else line


def _kind(reason: str) -> str:
    """Return a reason without the part that differs from row to row."""
    return reason.partition(" of ")[0].partition(":")[0]
