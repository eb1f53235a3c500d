"""Bad samples: each is reported once, and too many stop the run."""

import errno
import fcntl
import json
import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vdm.regular_files import open_descriptor
from vdm.text import printable

logger = logging.getLogger(__name__)

MIN_SAMPLES = 200
"""The share of bad samples is computed over at least this many, so that one in the first batch can't stop a run."""
MAX_LINE_BYTES = 1 << 16
"""Greatest length of a line of a report."""
RECENT_SAMPLES = 10_000
"""The share is also computed over this many latest samples, so that earlier good samples don't hide a later fault."""


@dataclass(frozen=True)
class Fault:
    """Why a sample could not be used."""

    shard: str
    key: str
    """Empty where the shard's own list of samples can't be read."""
    offset: int
    """First byte of the sample's video in the shard; -1 if unknown."""
    reason: str


class BadSampleError(ValueError):
    """A sample that can't be read or decoded."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class TooManyBadSamplesError(ValueError):
    """More samples are bad than the run allows."""


class Quarantine:
    """Counts bad samples and lists each once.

    Args:
        path: Report, one JSON object a line, to which each new fault is appended; None keeps no report.
        max_bad_fraction: Share of bad samples among all those loaded, or the last ``RECENT_SAMPLES`` of them, above
            which ``record`` raises.

    Raises:
        ValueError: In one line, if ``path`` is another file than a report.
    """

    def __init__(self, path: Path | None, max_bad_fraction: float) -> None:
        if path is not None:
            check_report(path)
        self._path = path
        self._max_bad_fraction = max_bad_fraction
        self._num_samples = 0
        self.num_bad = 0
        """Bad samples so far, repeated ones included."""
        self._recent: deque[tuple[int, int]] = deque()
        """Of the last batches: samples, and bad ones among them."""
        self._num_recent = 0
        self._num_recent_bad = 0
        self._known: set[Fault] = set()

    def record(self, num_samples: int, faults: Sequence[Fault]) -> None:
        """Count a batch of ``num_samples`` and report its faults.

        Raises:
            TooManyBadSamplesError: If the share of bad samples is now above ``max_bad_fraction``.
        """
        self._num_samples += num_samples
        self.num_bad += len(faults)
        self._count_recent(num_samples, len(faults))
        if not faults:
            return
        for fault in faults:
            self._report(fault)
        if self._is_too_many(self.num_bad, self._num_samples):
            found = f"{self.num_bad} of {self._num_samples}"
        elif self._is_too_many(self._num_recent_bad, self._num_recent):
            found = f"{self._num_recent_bad} of the last {self._num_recent}"
        else:
            return
        report = f"{self._path} lists them" if self._path else f"the last: {faults[-1].reason}"
        raise TooManyBadSamplesError(
            f"{found} samples loaded could not be used, more than the share of "
            f"max_bad_fraction={self._max_bad_fraction:g}; {report}"
        )

    def _count_recent(self, num_samples: int, num_bad: int) -> None:
        self._recent.append((num_samples, num_bad))
        self._num_recent += num_samples
        self._num_recent_bad += num_bad
        while self._num_recent - self._recent[0][0] >= RECENT_SAMPLES:
            num_samples, num_bad = self._recent.popleft()
            self._num_recent -= num_samples
            self._num_recent_bad -= num_bad

    def _is_too_many(self, num_bad: int, num_samples: int) -> bool:
        return num_bad > self._max_bad_fraction * max(num_samples, MIN_SAMPLES)

    def _report(self, fault: Fault) -> None:
        if fault in self._known:
            return
        self._known.add(fault)
        logger.warning("Left out a bad sample: %s", printable(fault.reason))
        if self._path is not None:
            _append_once(self._path, json.dumps(asdict(fault)) + "\n")


def check_report(path: Path) -> None:
    """Check that a report may be written to a path: a new file, or an earlier report to append to.

    Raises:
        ValueError: In one line, if something else lies there.
    """
    try:
        descriptor = open_descriptor(path, follow_links=False)
    except FileNotFoundError:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise ValueError(f"quarantine_path={path}: nothing can be written into {folder}") from None
        return
    except OSError as error:
        raise ValueError(_refusal(path, f"{error.strerror}")) from None
    with os.fdopen(descriptor, "rb") as file:
        first = file.readline(MAX_LINE_BYTES)
    if first and not _is_fault(first):
        raise ValueError(_refusal(path, "its first line is no bad sample"))


def _refusal(path: Path, reason: str) -> str:
    return f"quarantine_path={path}: {reason}; name a file that does not exist yet, or a report of earlier runs"


def _is_fault(line: bytes) -> bool:
    try:
        content = json.loads(line)
    except (RecursionError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() == {field.name for field in fields(Fault)}


def _append_once(path: Path, line: str) -> None:
    """Append a line unless the file has it; other ranks and earlier runs append to the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    check_report(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    descriptor = open_descriptor(path, flags, follow_links=False)
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        _lock(file.fileno())
        if line not in file:
            file.seek(0, os.SEEK_END)
            file.write(line)


def _lock(descriptor: int) -> None:
    """Lock the file, if the file system has locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL):
            raise
