"""Samples that proved bad: reported once, and too many of them stop the run."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

MIN_SAMPLES = 200
"""The share of bad samples is taken of no fewer than these, lest one bad sample in the first batch stop the run."""


@dataclass(frozen=True)
class Fault:
    """Why a sample could not be used."""

    shard: str
    key: str
    """Empty where the shard's own list of samples can't be read."""
    offset: int
    """Byte of the shard at which the sample's video begins, -1 where unknown."""
    reason: str


class BadSampleError(ValueError):
    """A sample that can't be read or decoded."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class TooManyBadSamplesError(ValueError):
    """So many samples are bad that training on the rest is not what was asked for."""


class Quarantine:
    """Counts bad samples and lists each once.

    Args:
        path: Report, one JSON object a line, to which each new fault is appended; None keeps no report.
        max_bad_fraction: Share of bad samples among those loaded, above which ``record`` raises.
    """

    def __init__(self, path: Path | None, max_bad_fraction: float) -> None:
        self._path = path
        self._max_bad_fraction = max_bad_fraction
        self._num_samples = 0
        self._num_bad = 0
        self._known: set[Fault] = set()

    def record(self, num_samples: int, faults: Sequence[Fault]) -> None:
        """Count a batch of ``num_samples`` and report its faults.

        Raises:
            TooManyBadSamplesError: If the share of bad samples is now above ``max_bad_fraction``.
        """
        self._num_samples += num_samples
        self._num_bad += len(faults)
        for fault in faults:
            self._report(fault)
        if self._num_bad > self._max_bad_fraction * max(self._num_samples, MIN_SAMPLES):
            report = f"{self._path} lists them" if self._path else f"the last: {faults[-1].reason}"
            raise TooManyBadSamplesError(
                f"{self._num_bad} of {self._num_samples} samples loaded could not be used, more than the share of "
                f"max_bad_fraction={self._max_bad_fraction:g}; {report}"
            )

    def _report(self, fault: Fault) -> None:
        if fault in self._known:
            return
        self._known.add(fault)
        logger.warning("Left out a bad sample: %s", fault.reason)
        if self._path is not None:
            _append_once(self._path, json.dumps(asdict(fault), ensure_ascii=False) + "\n")


def _append_once(path: Path, line: str) -> None:
    """Append a line that the file lacks; other ranks append to it as well, and earlier runs have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        if line not in file:
            file.write(line)
