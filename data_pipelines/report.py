"""What a build found: ``report.json`` beside the shards, and lines for the terminal.

The report is also how the next build knows what is finished.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipelines.annotations import Annotation
from data_pipelines.assemble import Stored
from data_pipelines.parts import LEFT_OUT, MAPPED, Part, part_from_json
from data_pipelines.settings import SetSettings
from data_pipelines.sources import Inputs, Source
from vdm.data.index import ShardIndex
from vdm.files import MALFORMED, write_json
from vdm.json_values import parse_json
from vdm.regular_files import read_limited
from vdm.text import printable

_TEXTS = frozenset([".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv", ".txt"])
_NAMED = 3
_YOUNGER = frozenset(["hdr", "more_captions", "recording"])
"""Fields of parts and annotations that sets of earlier versions lack."""
REPORT_NAME = "report.json"
MAX_REPORT_BYTES = 1 << 32
"""Of millions of clips."""


@dataclass(frozen=True)
class Report:
    """The outcome of one build."""

    parts: tuple[Part, ...]
    """One a source."""
    splits: Mapping[str, str]
    """By name of the source, where it gave clips."""
    digest: str
    """Changes when anything that the shards are written from does."""


def digest_of(parts: Sequence[Part], inputs: Inputs[Source], settings: SetSettings, stored: Stored) -> str:
    """Return a digest of all that goes into the shards, wherever they are written."""
    annotations = {name: _digested(annotation) for name, annotation in inputs.annotations.items()}
    texts = {source: path.name for source, path in stored.texts.items()}
    beside = [stored.latents and dict(stored.latents.encoder), stored.text and asdict(stored.text), texts]
    of_set = {**asdict(settings), "output": None}
    content = [[_digested(part) for part in parts], annotations, inputs.labels, of_set, beside]
    if inputs.recordings:  # of which sets of earlier versions know nothing
        content.append(dict(inputs.recordings))
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _digested(row: Annotation | Part) -> dict[str, object]:
    """Return what counts of a row; younger fields only where they say something, as older sets lack them."""
    return {name: value for name, value in asdict(row).items() if value or name not in _YOUNGER}


def all_faults(parts: Sequence[Part], inputs: Inputs[Source]) -> list[tuple[str, str]]:
    """Return (file, reason) for every fault, in order of the files."""
    return sorted([*inputs.faults.items(), *((part.source, part.fault) for part in parts if part.fault)])


def write_report(folder: Path, report: Report, inputs: Inputs[Source]) -> None:
    """Write ``report.json``."""
    sources = [{**asdict(part), "split": report.splits.get(part.source)} for part in report.parts]
    faults = [{"file": file, "reason": reason} for file, reason in all_faults(report.parts, inputs)]
    content = {"faults": faults, "ignored": inputs.ignored, "digest": report.digest, "sources": sources}
    write_json(folder / REPORT_NAME, content, indent=1)


def read_report(folder: Path) -> Report | None:
    """Read the report of the last finished build, if there is one."""
    try:
        content = parse_json(read_limited(folder / REPORT_NAME, MAX_REPORT_BYTES))
        splits = {row["source"]: row.pop("split") for row in content["sources"]}
        return Report(tuple(map(part_from_json, content["sources"])), splits, content["digest"])
    except (OSError, *MALFORMED):
        return None


def print_faults(parts: Sequence[Part], inputs: Inputs[Source]) -> bool:
    """Print every fault in a line on stderr and say whether there was any."""
    faults = all_faults(parts, inputs)
    for file, reason in faults:
        print(printable(f"{file}: {reason}"), file=sys.stderr)
    for note in (*inputs.notes, *hdr_notes({part.source: part.hdr for part in parts if part.hdr})):
        print(printable(note), file=sys.stderr)
    if inputs.ignored:
        print(printable(f"Not videos, passed over: {_kinds(inputs.ignored)}"), file=sys.stderr)
    return bool(faults)


def hdr_notes(became: Mapping[str, str]) -> list[str]:
    """Return a line for each thing that became of HDR videos; ``became`` is by file, as ``Part.hdr``."""
    lines: list[str] = []
    for what, meaning in ((MAPPED, "mapped to SDR"), (LEFT_OUT, "left out, as hdr=leave_out says")):
        if names := [name for name, other in became.items() if other == what]:
            lines.append(f"HDR videos {meaning}: {len(names)} ({_some(names)})")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", \u2026" if len(names) > _NAMED else "")


def _kinds(files: Sequence[str]) -> str:
    """Return how many files there are of each suffix, with names of those that might have been captions."""
    by_suffix: dict[str, list[str]] = {}
    for name in files:
        by_suffix.setdefault(Path(name).suffix.lower(), []).append(name)
    kinds: list[str] = []
    for suffix, names in sorted(by_suffix.items(), key=lambda item: item[0] or "no suffix"):
        kinds.append(f"{len(names)} {suffix or 'no suffix'}" + (f" ({_some(names)})" if suffix in _TEXTS else ""))
    return ", ".join(kinds)


def described(index: ShardIndex) -> str:
    """Return how many clips each split has, and how many of all have no caption, if any."""
    counts = ", ".join(f"{split} {index.num_samples(split)}" for split in index.splits)
    without = sum((index.num_uncaptioned or {}).values())
    return f"{counts}; without a caption: {without}" if without else counts


def print_summary(output: Path, index: ShardIndex, num_faults: int) -> None:
    """Print what the set holds."""
    faults = f"; faults in {REPORT_NAME}: {num_faults}" if num_faults else ""
    print(f"{printable(output)}: clips: {described(index)}{faults}")
