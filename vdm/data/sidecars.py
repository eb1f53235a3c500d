"""The sidecar of a shard, ``train-000000.index.json``: place and checksum of each file of each sample in the tar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdm.data.shards import (
    CHECKSUM_BYTES,
    HOW_TO_REMAKE,
    MAX_FRAMES,
    MAX_SIDE,
    Member,
    SampleEntry,
    Shape,
    ShardEntry,
    count_kinds,
)
from vdm.data.storage import Folder, folder_of, read_whole
from vdm.files import MALFORMED, write_json
from vdm.json_values import known_version, mapping, parse_json, positive_number, sequence, text, whole_number

VERSION = 1
MAX_SIDECAR_BYTES = 1 << 28
"""Enough for a million samples of some 200 bytes."""
MAX_KEY = 4096
"""Characters of a sample's key."""
MAX_EXTENSION = 255
"""Characters of a member's extension."""


def sidecar_name(shard_name: str) -> str:
    """Return the name of a shard's sidecar: ``train-000000.index.json`` for ``train-000000.tar``."""
    return f"{shard_name.removesuffix('.tar')}.index.json"


def read_samples(path: str | Path | Folder, shard: ShardEntry) -> tuple[SampleEntry, ...]:
    """Read the sidecar of a shard.

    Raises:
        ValueError: In one line, if it is missing, malformed or at odds with the index.
        OSError: If the storage does not give it.
    """
    where = folder_of(path).path_of(sidecar_name(shard.name))
    return _checked(where, read_sidecar(path, shard.name), shard)


def parse_samples(where: str, data: bytes | bytearray, shard: ShardEntry) -> tuple[SampleEntry, ...]:
    """Return the samples in the sidecar of a shard.

    Args:
        where: Path of the sidecar, for messages.
        data: Its content.
        shard: The index's entry for the shard.

    Raises:
        ValueError: In one line, if it is malformed or at odds with the index.
    """
    return _checked(where, _parse(where, data), shard)


def read_sidecar(path: str | Path | Folder, shard_name: str) -> tuple[SampleEntry, ...]:
    """Read a sidecar without comparing it with an index; see ``read_samples``.

    Raises:
        ValueError: In one line, if it is missing or malformed.
    """
    folder = folder_of(path)
    sidecar = folder.path_of(sidecar_name(shard_name))
    try:
        data = read_whole(folder, sidecar_name(shard_name), MAX_SIDECAR_BYTES)
    except FileNotFoundError:
        raise ValueError(f"{sidecar}: no such file; {HOW_TO_REMAKE}") from None
    return _parse(sidecar, data)


def write_samples(path: Path, shard_name: str, samples: Sequence[SampleEntry], durable: bool = True) -> None:
    """Write the sidecar of a shard; for ``durable`` see ``write_json``."""
    rows = [_sample_to_json(sample) for sample in samples]
    write_json(Path(path) / sidecar_name(shard_name), {"version": VERSION, "samples": rows}, durable=durable)


def _checked(where: str, samples: tuple[SampleEntry, ...], shard: ShardEntry) -> tuple[SampleEntry, ...]:
    if count_kinds(samples) != dict(shard.kinds):
        raise ValueError(
            f"{where}: lists {len(samples)} samples where the index counts {shard.num_samples}, or samples of other "
            f"shapes or frame rates; {HOW_TO_REMAKE}"
        )
    for sample in samples:
        if not sample.members:
            raise ValueError(f"{where}: {sample.key} would have no files; {HOW_TO_REMAKE}")
        for extension, member in sample.members.items():
            if min(member.offset, member.length) < 0 or member.offset + member.length > shard.num_bytes:
                raise ValueError(
                    f"{where}: {sample.key}.{extension} would have {member.length} bytes from byte {member.offset} on, "
                    f"where the shard has {shard.num_bytes}; {HOW_TO_REMAKE}"
                )
    return samples


def _sample_to_json(sample: SampleEntry) -> dict[str, Any]:
    members = {name: [m.offset, m.length, m.checksum] for name, m in sample.members.items()}
    row = {"key": sample.key, "shape": sample.shape, "members": members}
    return row if sample.fps is None else {**row, "fps": sample.fps}


def _parse(where: str, data: bytes | bytearray) -> tuple[SampleEntry, ...]:
    try:
        content = mapping(parse_json(data))
        known_version(content.get("version", 1), VERSION, "the sidecar")
        return tuple(_parse_sample(row) for row in sequence(content["samples"]))
    except MALFORMED as error:
        raise ValueError(f"{where}: is not a sidecar of vdm shards ({error!r}); {HOW_TO_REMAKE}") from None


def _parse_member(offset: object, length: object, digest: str) -> Member:
    if len(bytes.fromhex(digest)) != CHECKSUM_BYTES:
        raise ValueError(f"{digest!r} is no checksum")
    return Member(whole_number(offset, -(1 << 62), 1 << 62), whole_number(length, -(1 << 62), 1 << 62), digest)


def _parse_sample(row: dict[str, Any]) -> SampleEntry:
    members = {
        text(name, MAX_EXTENSION): _parse_member(*sequence(place)) for name, place in mapping(row["members"]).items()
    }
    t, h, w = sequence(row["shape"])
    shape: Shape = (whole_number(t, 1, MAX_FRAMES), whole_number(h, 1, MAX_SIDE), whole_number(w, 1, MAX_SIDE))
    key = text(row["key"], MAX_KEY)
    key.encode()  # JSON can contain lone surrogates, which UTF-8 can't encode
    return SampleEntry(key, shape, members, positive_number(row["fps"]) if "fps" in row else None)
