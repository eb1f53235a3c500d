"""The history of a run, ``RUN/history.jsonl``: each start and each end of training, written by the first process.

One JSON object a line. A start that was killed has no end. The history is a log: nothing that training does depends on
it, so what can't be written or read is passed over with a warning.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from vdm.credentials import without_credentials
from vdm.outside import read_text
from vdm.regular_files import open_descriptor

HISTORY_NAME = "history.jsonl"
MAX_REASON = 500
"""Characters of a reason, at most."""
_MAX_COMMAND = 20_000
"""Characters of a command line, at most."""

_Count = Annotated[int, Field(ge=0, le=1 << 62)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the history.

    Args:
        event: What happened. ``start``: training began, at the state of a checkpoint or anew; ``first_step``: this
            start has done its first step; ``rollback``: after a bad step training went back to an earlier checkpoint.
            Of the ends, ``finish``: training is complete; ``stop``: a signal or ``trainer.max_time`` ended it;
            ``fail``: an error did.
        time: Unix seconds.
        step: Optimizer steps done by then; ``None`` if training had not begun.
        position: Samples consumed by then; ``None`` if training had not begun.
        reason: Of an end or a rollback, in one line.
        from_step: Of a rollback: the bad step.
        command: Of a start: the command line, quoted for a shell.
        host: Of a start: the machine of the first process.
        num_processes: Of a start.
        devices: Of a start, such as ``2 x cuda``.
        strategy: Of a start: class of the strategy.
        max_steps: Of a start: steps of the whole run; ``None``: without end.
        resumed_from: Of a start: the checkpoint, relative to the run's folder; ``None`` if training began anew.
        lost_steps: Of a start: steps that an earlier start had done after that checkpoint, which are repeated.
        lost_seconds: Of a start: seconds without training before it, from the last sign of life of the earlier start;
            0 if that had finished. See ``whole_cost``.
    """

    event: Literal["start", "first_step", "rollback", "stop", "fail", "finish"]
    time: _Seconds
    step: _Count | None
    position: _Count | None
    reason: str | None = None
    from_step: _Count | None = None
    command: str | None = None
    host: str | None = None
    num_processes: _Count | None = None
    devices: str | None = None
    strategy: str | None = None
    max_steps: _Count | None = None
    resumed_from: str | None = None
    lost_steps: _Count | None = None
    lost_seconds: _Seconds | None = None

    @property
    def is_end(self) -> bool:
        """Whether training ended by this event."""
        return self.event in ("stop", "fail", "finish")


_EVENT = TypeAdapter(Event)


def append_event(run: Path, event: Event) -> None:
    """Append an event to the history of a run, in one write, and flush it to the disk; never fails.

    Text is shortened, so that a line is one for the reader too, and loses its credentials.
    """
    kept = ("step", "position", *(("max_steps", "resumed_from") if event.event == "start" else ()))
    bounded = replace(
        event,
        reason=None if event.reason is None else _shortened(without_credentials(event.reason), MAX_REASON),
        command=None if event.command is None else _shortened(without_credentials(event.command), _MAX_COMMAND),
    )
    values = {name: value for name, value in asdict(bounded).items() if value is not None or name in kept}
    path = run / HISTORY_NAME
    try:
        descriptor = open_descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, follow_links=False)
        try:
            size = os.fstat(descriptor).st_size
            is_cut_off = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by the death of an earlier start
            os.write(descriptor, ("\n" * is_cut_off + json.dumps(values) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _log.warning("%s: can't be written: %s; it is only a log, training goes on", path, error.strerror or error)


def read_history(run: Path) -> list[Event]:
    """Return the history of a run, in the order in which it happened; empty if there is none.

    Lines that are no events are passed over with a warning, except a last one that is being written.

    Raises:
        ValueError: In one line, if the file can't be read.
    """
    path = run / HISTORY_NAME
    if not os.path.lexists(path):
        return []
    *lines, _ = read_text(path).split("\n")
    events: list[Event] = []
    complaints: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(_EVENT.validate_json(line, strict=True))
        except ValidationError as error:
            detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
            key = ".".join(map(str, detail["loc"]))
            complaints.append(f"line {number}: {f'{key}: ' if key else ''}{detail['msg']}")
    if complaints:
        more = f", and {len(complaints) - 1} more" if len(complaints) > 1 else ""
        _log.warning("%s: passed over what is no event: %s%s", path, complaints[0], more)
    return events


def latest_start(events: Sequence[Event]) -> Sequence[Event]:
    """Return the latest start with all events after it; all events, if there is no start."""
    starts = [index for index, event in enumerate(events) if event.event == "start"]
    return events[starts[-1] :] if starts else events


def whole_cost(events: Sequence[Event]) -> float:
    """Return the seconds without training before a start, up to its first step, which may compile the network.

    Args:
        events: A start, and the events after it.
    """
    start = events[0]
    first = next((event.time for event in events[1:] if event.event == "first_step"), start.time)
    return 0.0 if start.lost_seconds is None else start.lost_seconds + max(0.0, first - start.time)


def one_line(text: str) -> str:
    """Return the first and the last line of a text, between which a traceback has its frames, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return _shortened(lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}", MAX_REASON)


def _shortened(text: str, limit: int) -> str:
    text = " ".join(text.split("\n"))
    return text if len(text) <= limit else f"{text[: limit - 1]}\u2026"
