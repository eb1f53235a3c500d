"""One shard out of parts."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipelines.annotations import Annotation
from data_pipelines.encode.shard_writer import ShardWriter
from data_pipelines.parts import discard_part
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
    """A clip of a shard that is to be written."""

    source: str
    sample: SampleEntry
    """Where it lies in its part."""
    annotation: Annotation | None
    label: int | None
    text: Path | None


@dataclass(frozen=True)
class ShardPlan:
    """A shard that is to be written."""

    name: str
    clips: tuple[PlannedClip, ...]


def entry_path(plan: ShardPlan, fresh: Path) -> Path:
    """Return where it is written what the index is to say of a shard."""
    return fresh / f"{plan.name}.entry.json"


def read_entry(plan: ShardPlan, fresh: Path) -> tuple[ShardEntry, int]:
    """Return what the index is to say of a shard that is written, and how many of its clips have no caption."""
    row = parse_json(read_limited(entry_path(plan, fresh), MAX_ENTRY_BYTES))
    without = row.pop("num_uncaptioned", 0)
    return ShardEntry(**{**row, "kinds": {Kind.parse(name): count for name, count in row["kinds"].items()}}), without


def is_written(plan: ShardPlan, fresh: Path) -> bool:
    """Whether a shard is complete."""
    return entry_path(plan, fresh).exists() and (fresh / plan.name).exists()


def write_shard(plan: ShardPlan, folder: Path, fresh: Path) -> None:
    """Write one shard, its sidecar and, last, what the index is to say of it.

    Raises:
        UnavailableError: If parts are damaged; they are removed, so that they are made anew.
    """
    damaged: dict[str, str] = {}
    num_uncaptioned = 0
    with ShardWriter(fresh / plan.name) as writer:
        for clip in plan.clips:
            try:
                part = _read_part(clip, folder)
            except (OSError, DamagedSample) as error:
                damaged[clip.source] = str(error)
                continue
            members, is_captioned = _members(clip, part)
            num_uncaptioned += not is_captioned
            writer.add(clip.sample.key, clip.sample.shape, members)
        for source in damaged:
            discard_part(source, folder)
        if damaged:
            raise UnavailableError(f"parts are damaged: {'; '.join(damaged.values())}")
    assert writer.entry is not None
    kinds = {kind.name: count for kind, count in writer.entry.kinds.items()}
    row = {**asdict(writer.entry), "kinds": kinds, "num_uncaptioned": num_uncaptioned}
    write_json(entry_path(plan, fresh), row)


def _read_part(clip: PlannedClip, folder: Path) -> dict[str, bytes]:
    tar = folder / f"{source_key(clip.source)}.tar"
    with open_regular(tar) as file:
        kept = [name for name in ("mp4", "json", LATENTS) if name in clip.sample.members]
        return {name: read_member(file, str(tar), clip.sample, name) for name in kept}


def _members(clip: PlannedClip, part: Mapping[str, bytes]) -> tuple[dict[str, bytes], bool]:
    """Complete what the part holds of a clip by its metadata, and by the embedding of its caption.

    Returns:
        Its files by extension, and whether it has a caption.
    """
    members = dict(part)
    metadata = json.loads(members["json"])
    if (annotation := clip.annotation) is not None:
        caption = [annotation.caption, *annotation.more_captions] if annotation.more_captions else annotation.caption
        metadata |= {"caption": caption, "label": clip.label}
        members["json"] = json.dumps(metadata, ensure_ascii=False).encode()
    if clip.text is not None:
        from data_pipelines.encode.texts import text_member  # torch, which clips alone do not need

        members[TEXT] = text_member(clip.text, clip.sample.key)
    return members, bool(metadata.get("caption"))
