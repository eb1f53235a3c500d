"""Writing one shard from encoded sources."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipelines.annotations import Annotation
from data_pipelines.encode.shard_writer import ShardWriter
from data_pipelines.encoded_sources import discard_encoded
from data_pipelines.sources import UnavailableError, source_key
from vdm.data.member_checks import DamagedSample, read_member
from vdm.data.reading import LATENTS, TEXT
from vdm.data.shards import Kind, SampleEntry, ShardEntry
from vdm.files import write_json
from vdm.json_values import parse_json
from vdm.regular_files import open_regular, read_limited

MAX_ENTRY_BYTES = 1 << 20


@dataclass(frozen=True)
class PlannedClip:
    """A clip of a planned shard."""

    source: str
    sample: SampleEntry
    """Its place in the tar of its encoded source."""
    annotation: Annotation | None
    label: int | None
    text: Path | None
    """File with the embedding of its caption; see ``StoredEncodings.texts``."""


@dataclass(frozen=True)
class ShardPlan:
    """A shard that has yet to be written."""

    name: str
    clips: tuple[PlannedClip, ...]


def entry_path(plan: ShardPlan, staging: Path) -> Path:
    """Return the path of the file that holds a shard's index entry until the index is written."""
    return staging / f"{plan.name}.entry.json"


def read_entry(plan: ShardPlan, staging: Path) -> tuple[ShardEntry, int]:
    """Return the index entry of a written shard, and its number of clips without a caption."""
    row = parse_json(read_limited(entry_path(plan, staging), MAX_ENTRY_BYTES))
    without = row.pop("num_uncaptioned", 0)
    return ShardEntry(**{**row, "kinds": {Kind.parse(name): count for name, count in row["kinds"].items()}}), without


def is_written(plan: ShardPlan, staging: Path) -> bool:
    """Whether a shard is complete."""
    return entry_path(plan, staging).exists() and (staging / plan.name).exists()


def write_shard(plan: ShardPlan, folder: Path, staging: Path) -> None:
    """Write one shard, its sidecar and, last, its index entry.

    Raises:
        UnavailableError: If encoded sources are damaged; they are removed, so that they are encoded again.
    """
    damaged: dict[str, str] = {}
    num_uncaptioned = 0
    with ShardWriter(staging / plan.name) as writer:
        for clip in plan.clips:
            try:
                encoded = _read_clip(clip, folder)
            except (OSError, DamagedSample) as error:
                damaged[clip.source] = str(error)
                continue
            members, is_captioned = _members(clip, encoded)
            num_uncaptioned += not is_captioned
            writer.add(clip.sample.key, clip.sample.shape, members)
        for source in damaged:
            discard_encoded(source, folder)
        if damaged:
            raise UnavailableError(f"encoded sources are damaged: {'; '.join(damaged.values())}")
    assert writer.entry is not None
    kinds = {kind.name: count for kind, count in writer.entry.kinds.items()}
    row = {**asdict(writer.entry), "kinds": kinds, "num_uncaptioned": num_uncaptioned}
    write_json(entry_path(plan, staging), row)


def _read_clip(clip: PlannedClip, folder: Path) -> dict[str, bytes]:
    tar = folder / f"{source_key(clip.source)}.tar"
    with open_regular(tar) as file:
        kept = [name for name in ("mp4", "json", LATENTS) if name in clip.sample.members]
        return {name: read_member(file, str(tar), clip.sample, name) for name in kept}


def _members(clip: PlannedClip, encoded: Mapping[str, bytes]) -> tuple[dict[str, bytes], bool]:
    """Add caption, label and text embedding to the encoded members of a clip.

    Returns:
        The members by extension, and whether the clip has a caption.
    """
    members = dict(encoded)
    metadata = json.loads(members["json"])
    if (annotation := clip.annotation) is not None:
        caption = [annotation.caption, *annotation.more_captions] if annotation.more_captions else annotation.caption
        metadata |= {"caption": caption, "label": clip.label}
        members["json"] = json.dumps(metadata, ensure_ascii=False).encode()
    if clip.text is not None:
        from data_pipelines.encode.texts import text_member  # imports torch, which clips alone do not need

        members[TEXT] = text_member(clip.text, clip.sample.key)
    return members, bool(metadata.get("caption"))
