"""What one source gave, kept in a file of its own until all shards are written: an interrupted build goes on from here.

A part is a small shard ``KEY.tar`` with its sidecar, and ``KEY.part.json``, written last. Its ``.json`` members lack
the caption and label that are looked up when shards are written, so that these may change without encoding anew. Parts
do not outlast a power failure for certain; their checksums tell.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipelines.encode.encoders import ClipEncoder
from data_pipelines.encode.h264 import encode_h264
from data_pipelines.encode.shard_writer import ShardWriter
from data_pipelines.sources import Clip, LeftOutError, Source, SourceError, UnavailableError, source_key
from vdm.data.index import read_index
from vdm.data.member_checks import DamagedSample, read_member
from vdm.data.shards import SampleEntry, ShardEntry
from vdm.data.sidecars import read_samples, read_sidecar, sidecar_name
from vdm.files import MALFORMED, write_json
from vdm.json_values import parse_json
from vdm.regular_files import open_regular, read_limited

MAX_PART_BYTES = 1 << 28
MAPPED, LEFT_OUT = "mapped", "left out"


@dataclass(frozen=True)
class Part:
    """What came of one source."""

    source: str
    fingerprint: str
    """That of the source when it was read; empty if it is to be tried again next time."""
    keys: tuple[str, ...]
    """Of its clips."""
    fault: str | None
    """Why it gave no clips or fewer than it should, in one line."""
    hdr: str = ""
    """What became of high dynamic range in it: ``MAPPED`` or ``LEFT_OUT``; empty if it has none."""

    @property
    def num_clips(self) -> int:
        """How many clips it gave."""
        return len(self.keys)


def make_part(source: Source, folder: Path, encoder: ClipEncoder | None = None) -> None:
    """Cut and encode all clips of a source into its part.

    Args:
        source: Where the clips come from.
        folder: Of the parts.
        encoder: Makes latents that are stored beside the clips; None stores clips alone.
    """
    fault, fingerprint, hdr = None, source.fingerprint, ""
    key = source_key(source.name)
    with ShardWriter(folder / f"{key}.tar", durable=False) as writer:
        try:
            for clip in source.clips():
                _add_clip(writer, clip, source.settings.fps, encoder)
                hdr = MAPPED if "source_hdr" in clip.metadata else hdr
        except LeftOutError:
            hdr = LEFT_OUT
        except UnavailableError as error:
            fault, fingerprint = str(error), ""
        except SourceError as error:
            fault = str(error)
    write_part(Part(source.name, fingerprint, tuple(sample.key for sample in writer.samples), fault, hdr), folder)


def _add_clip(writer: ShardWriter, clip: Clip, fps: float, encoder: ClipEncoder | None) -> None:
    num_frames, height, width, _ = clip.video.shape
    metadata = {"fps": fps, "num_frames": num_frames, "height": height, "width": width, **clip.metadata}
    members = {"mp4": encode_h264(clip.video, fps), "json": json.dumps(metadata).encode()}
    if encoder is not None:
        members |= encoder.members(clip.video)
    writer.add(clip.key, (num_frames, height, width), members)


def write_part(part: Part, folder: Path) -> None:
    """Declare a part finished, after its tar has been written."""
    write_json(folder / f"{source_key(part.source)}.part.json", asdict(part), durable=False)


def find_part(source_name: str, folder: Path) -> Part | None:
    """Return the part of a source if it is finished, and whole as far as its sidecar and its size tell."""
    key = source_key(source_name)
    try:
        part = part_from_json(parse_json(read_limited(folder / f"{key}.part.json", MAX_PART_BYTES)))
        samples = read_part(part, folder)
        num_bytes = (folder / f"{key}.tar").stat().st_size
    except (OSError, *MALFORMED):
        return None
    end = max((member.offset + member.length for sample in samples for member in sample.members.values()), default=0)
    return part if tuple(sample.key for sample in samples) == part.keys and num_bytes >= end else None


def discard_part(source_name: str, folder: Path) -> None:
    """Remove a part that has turned out to be damaged, so that it is made anew."""
    key = source_key(source_name)
    for name in (f"{key}.part.json", f"{key}.tar", sidecar_name(f"{key}.tar")):
        (folder / name).unlink(missing_ok=True)


def part_from_json(row: Mapping[str, Any]) -> Part:
    """Invert ``dataclasses.asdict``.

    Raises:
        TypeError: If ``row`` is something else.
    """
    part = Part(**{**row, "keys": tuple(row.get("keys", ()))})
    texts = (part.source, part.fingerprint, part.fault or "", part.hdr, *part.keys)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("no part: its names are no texts")
    return part


def read_part(part: Part, folder: Path) -> tuple[SampleEntry, ...]:
    """Return the clips of a part in order."""
    return read_sidecar(folder, f"{source_key(part.source)}.tar")


def restore_parts(parts: Sequence[Part], output: Path, folder: Path) -> list[Part]:
    """Make parts again from finished shards, without encoding; return those of which every clip is intact."""
    try:
        shards = read_index(output, check_sizes=False).shards()
    except ValueError:
        return []
    places: dict[str, tuple[ShardEntry, SampleEntry]] = {}
    for shard in shards:
        try:
            places |= {sample.key: (shard, sample) for sample in read_samples(output, shard)}
        except (OSError, ValueError):  # its clips are made anew
            continue
    return [part for part in parts if _restore_part(part, places, output, folder)]


def _restore_part(part: Part, places: Mapping[str, tuple[ShardEntry, SampleEntry]], output: Path, folder: Path) -> bool:
    key = source_key(part.source)
    try:
        with ShardWriter(folder / f"{key}.tar", durable=False) as writer:
            for clip in part.keys:
                shard, sample = places[clip]
                with open_regular(output / shard.name) as file:
                    members = {name: read_member(file, shard.name, sample, name) for name in sample.members}
                writer.add(clip, sample.shape, members)
    except (KeyError, OSError, DamagedSample):
        return False
    write_part(part, folder)
    return True
