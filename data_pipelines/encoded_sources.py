"""Encoded sources: the encoded clips of each source in an intermediate file, from which an interrupted build resumes.

An encoded source is a small tar ``KEY.tar`` with its sidecar, and a record ``KEY.part.json``, written last. The
``.json`` members have no caption or label yet: both are added when the shards are written, so that they may change
without encoding again. These files are not flushed to disk, so a power failure may damage them; checksums reveal that.
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

MAX_RECORD_BYTES = 1 << 28
MAPPED, LEFT_OUT = "mapped", "left out"


@dataclass(frozen=True)
class EncodedSource:
    """The record of one encoded source."""

    source: str
    fingerprint: str
    """Fingerprint of the source when it was read; empty if the next build should read it again."""
    keys: tuple[str, ...]
    """Keys of its clips, in order."""
    fault: str | None
    """Why it has no clips or fewer than it should, in one line; None if nothing was wrong."""
    hdr: str = ""
    """``MAPPED`` or ``LEFT_OUT`` if the source is of high dynamic range; empty if it is not."""

    @property
    def num_clips(self) -> int:
        """Number of its clips."""
        return len(self.keys)


def encode_source(source: Source, folder: Path, encoder: ClipEncoder | None = None) -> None:
    """Cut and encode all clips of a source; write them and then the record.

    Args:
        source: The source of the clips.
        folder: Folder of the encoded sources.
        encoder: Makes the latents that are stored beside the clips; None stores clips alone.
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
    write_record(
        EncodedSource(source.name, fingerprint, tuple(sample.key for sample in writer.samples), fault, hdr), folder
    )


def _add_clip(writer: ShardWriter, clip: Clip, fps: float, encoder: ClipEncoder | None) -> None:
    num_frames, height, width, _ = clip.video.shape
    metadata = {"fps": fps, "num_frames": num_frames, "height": height, "width": width, **clip.metadata}
    members = {"mp4": encode_h264(clip.video, fps), "json": json.dumps(metadata).encode()}
    if encoder is not None:
        members |= encoder.members(clip.video)
    writer.add(clip.key, (num_frames, height, width), members)


def write_record(encoded: EncodedSource, folder: Path) -> None:
    """Write the record of an encoded source, which declares its tar complete."""
    write_json(folder / f"{source_key(encoded.source)}.part.json", asdict(encoded), durable=False)


def find_encoded(source_name: str, folder: Path) -> EncodedSource | None:
    """Return the record of an encoded source; None unless it is complete, judging by its record, sidecar and size."""
    key = source_key(source_name)
    try:
        encoded = encoded_from_json(parse_json(read_limited(folder / f"{key}.part.json", MAX_RECORD_BYTES)))
        samples = read_encoded(encoded, folder)
        num_bytes = (folder / f"{key}.tar").stat().st_size
    except (OSError, *MALFORMED):
        return None
    end = max((member.offset + member.length for sample in samples for member in sample.members.values()), default=0)
    return encoded if tuple(sample.key for sample in samples) == encoded.keys and num_bytes >= end else None


def discard_encoded(source_name: str, folder: Path) -> None:
    """Remove a damaged encoded source, so that it is encoded again."""
    key = source_key(source_name)
    for name in (f"{key}.part.json", f"{key}.tar", sidecar_name(f"{key}.tar")):
        (folder / name).unlink(missing_ok=True)


def encoded_from_json(row: Mapping[str, Any]) -> EncodedSource:
    """Invert ``dataclasses.asdict``.

    Raises:
        TypeError: If ``row`` is something else.
    """
    encoded = EncodedSource(**{**row, "keys": tuple(row.get("keys", ()))})
    texts = (encoded.source, encoded.fingerprint, encoded.fault or "", encoded.hdr, *encoded.keys)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("not the record of an encoded source: its names are not texts")
    return encoded


def read_encoded(encoded: EncodedSource, folder: Path) -> tuple[SampleEntry, ...]:
    """Return the clips of an encoded source in order."""
    return read_sidecar(folder, f"{source_key(encoded.source)}.tar")


def restore_encoded(encoded_sources: Sequence[EncodedSource], output: Path, folder: Path) -> list[EncodedSource]:
    """Copy encoded sources back from finished shards, without encoding.

    Returns:
        The sources of which every clip was intact.
    """
    try:
        shards = read_index(output, check_sizes=False).shards()
    except ValueError:
        return []
    places: dict[str, tuple[ShardEntry, SampleEntry]] = {}
    for shard in shards:
        try:
            places |= {sample.key: (shard, sample) for sample in read_samples(output, shard)}
        except (OSError, ValueError):  # its clips are encoded again
            continue
    return [encoded for encoded in encoded_sources if _restore_one(encoded, places, output, folder)]


def _restore_one(
    encoded: EncodedSource, places: Mapping[str, tuple[ShardEntry, SampleEntry]], output: Path, folder: Path
) -> bool:
    key = source_key(encoded.source)
    try:
        with ShardWriter(folder / f"{key}.tar", durable=False) as writer:
            for clip in encoded.keys:
                shard, sample = places[clip]
                with open_regular(output / shard.name) as file:
                    members = {name: read_member(file, shard.name, sample, name) for name in sample.members}
                writer.add(clip, sample.shape, members)
    except (KeyError, OSError, DamagedSample):
        return False
    write_record(encoded, folder)
    return True
