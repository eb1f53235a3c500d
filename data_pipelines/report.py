"""The report of a build: ``report.json`` beside the shards, and lines for the terminal.

The next build reads from it which sources are finished.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipelines.annotations import Annotation
from data_pipelines.assemble import StoredEncodings
from data_pipelines.encoded_sources import LEFT_OUT, MAPPED, EncodedSource, encoded_from_json
from data_pipelines.settings import SetSettings
from data_pipelines.sources import Inputs, Source
from vdm.data.index import ShardIndex
from vdm.files import MALFORMED, write_json
from vdm.json_values import parse_json
from vdm.regular_files import read_limited
from vdm.text import printable

_TEXTS = frozenset([".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv", ".txt"])
_NAMED = 3
_ADDED_LATER = frozenset(["hdr", "more_captions", "recording"])
"""Fields of encoded sources and annotations that sets of earlier versions lack."""
REPORT_NAME = "report.json"
MAX_REPORT_BYTES = 1 << 32
"""Room for millions of clips."""


@dataclass(frozen=True)
class Report:
    """The result of one build."""

    encoded_sources: tuple[EncodedSource, ...]
    """One record a source."""
    splits: Mapping[str, str]
    """Split by name of the source, for sources with clips."""
    digest: str
    """Digest of everything that the shards are written from; see ``digest_of``."""


def digest_of(
    encoded_sources: Sequence[EncodedSource], inputs: Inputs[Source], settings: SetSettings, stored: StoredEncodings
) -> str:
    """Return a digest of everything that determines the content of the shards."""
    annotations = {name: _digested(annotation) for name, annotation in inputs.annotations.items()}
    texts = {source: path.name for source, path in stored.texts.items()}
    beside = [stored.latents and dict(stored.latents.encoder), stored.text and asdict(stored.text), texts]
    of_set = {**asdict(settings), "output": None}
    content = [[_digested(encoded) for encoded in encoded_sources], annotations, inputs.labels, of_set, beside]
    if inputs.recordings:  # sets of earlier versions have none
        content.append(dict(inputs.recordings))
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _digested(row: Annotation | EncodedSource) -> dict[str, object]:
    """Return the fields that enter the digest; empty ones of ``_ADDED_LATER`` are left out, as older sets lack them."""
    return {name: value for name, value in asdict(row).items() if value or name not in _ADDED_LATER}


def all_faults(encoded_sources: Sequence[EncodedSource], inputs: Inputs[Source]) -> list[tuple[str, str]]:
    """Return (file, reason) for every fault, sorted by file."""
    return sorted(
        [*inputs.faults.items(), *((encoded.source, encoded.fault) for encoded in encoded_sources if encoded.fault)]
    )


def write_report(folder: Path, report: Report, inputs: Inputs[Source]) -> None:
    """Write ``report.json``."""
    sources = [{**asdict(encoded), "split": report.splits.get(encoded.source)} for encoded in report.encoded_sources]
    faults = [{"file": file, "reason": reason} for file, reason in all_faults(report.encoded_sources, inputs)]
    content = {"faults": faults, "ignored": inputs.ignored, "digest": report.digest, "sources": sources}
    write_json(folder / REPORT_NAME, content, indent=1)


def read_report(folder: Path) -> Report | None:
    """Read the report of the last finished build, if there is one."""
    try:
        content = parse_json(read_limited(folder / REPORT_NAME, MAX_REPORT_BYTES))
        splits = {row["source"]: row.pop("split") for row in content["sources"]}
        return Report(tuple(map(encoded_from_json, content["sources"])), splits, content["digest"])
    except (OSError, *MALFORMED):
        return None


def print_faults(encoded_sources: Sequence[EncodedSource], inputs: Inputs[Source]) -> bool:
    """Print every fault and note in a line on stderr; return whether there was a fault."""
    faults = all_faults(encoded_sources, inputs)
    for file, reason in faults:
        print(printable(f"{file}: {reason}"), file=sys.stderr)
    for note in (
        *inputs.notes,
        *hdr_notes({encoded.source: encoded.hdr for encoded in encoded_sources if encoded.hdr}),
    ):
        print(printable(note), file=sys.stderr)
    if inputs.ignored:
        print(printable(f"Not videos, passed over: {_kinds(inputs.ignored)}"), file=sys.stderr)
    return bool(faults)


def hdr_notes(treatment: Mapping[str, str]) -> list[str]:
    """Return lines that say which HDR videos were mapped or left out.

    Args:
        treatment: ``EncodedSource.hdr`` by file.
    """
    lines: list[str] = []
    for what, meaning in ((MAPPED, "mapped to SDR"), (LEFT_OUT, "left out, as hdr=leave_out says")):
        if names := [name for name, other in treatment.items() if other == what]:
            lines.append(f"HDR videos {meaning}: {len(names)} ({_some(names)})")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", \u2026" if len(names) > _NAMED else "")


def _kinds(files: Sequence[str]) -> str:
    """Return the number of files by suffix, with names of those that might hold captions."""
    by_suffix: dict[str, list[str]] = {}
    for name in files:
        by_suffix.setdefault(Path(name).suffix.lower(), []).append(name)
    kinds: list[str] = []
    for suffix, names in sorted(by_suffix.items(), key=lambda item: item[0] or "no suffix"):
        kinds.append(f"{len(names)} {suffix or 'no suffix'}" + (f" ({_some(names)})" if suffix in _TEXTS else ""))
    return ", ".join(kinds)


def described(index: ShardIndex) -> str:
    """Return the number of clips of each split, and the number without a caption, if any."""
    counts = ", ".join(f"{split} {index.num_samples(split)}" for split in index.splits)
    without = sum((index.num_uncaptioned or {}).values())
    return f"{counts}; without a caption: {without}" if without else counts


def print_summary(output: Path, index: ShardIndex, num_faults: int) -> None:
    """Print the number of clips and faults of a finished set."""
    faults = f"; faults in {REPORT_NAME}: {num_faults}" if num_faults else ""
    print(f"{printable(output)}: clips: {described(index)}{faults}")
