"""The sidecar of a shard, ``train-000000.index.json``: where its tar holds each sample, and with which checksums."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdm.data.shards import CHECKSUM_BYTES, HOW_TO_REMAKE, Member, SampleEntry, Shape, ShardEntry, count_kinds
from vdm.data.storage import Folder, folder_of
from vdm.files import MALFORMED, write_json


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
    """Return what the sidecar of a shard says.

    Args:
        where: Path of the sidecar, for messages.
        data: Its content.
        shard: What the index says of the shard.

    Raises:
        ValueError: In one line, if it is malformed or at odds with the index.
    """
    return _checked(where, _parse(where, data), shard)


def read_sidecar(path: str | Path | Folder, shard_name: str) -> tuple[SampleEntry, ...]:
    """Read the sidecar of a shard that no index speaks of; see ``read_samples``."""
    folder = folder_of(path)
    sidecar = folder.path_of(sidecar_name(shard_name))
    try:
        data = folder.read(sidecar_name(shard_name))
    except FileNotFoundError:
        raise ValueError(f"{sidecar}: no such file; {HOW_TO_REMAKE}") from None
    return _parse(sidecar, data)


def write_samples(path: Path, shard_name: str, samples: Sequence[SampleEntry], durable: bool = True) -> None:
    """Write the sidecar of a shard; for ``durable`` see ``write_json``."""
    rows = [_sample_to_json(sample) for sample in samples]
    write_json(Path(path) / sidecar_name(shard_name), {"samples": rows}, durable=durable)


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
        return tuple(_parse_sample(row) for row in json.loads(data)["samples"])
    except MALFORMED as error:
        raise ValueError(f"{where}: is not a sidecar of vdm shards ({error!r}); {HOW_TO_REMAKE}") from None


def _parse_member(offset: Any, length: Any, digest: Any) -> Member:
    if len(bytes.fromhex(digest)) != CHECKSUM_BYTES:
        raise ValueError(f"{digest!r} is no checksum")
    return Member(int(offset), int(length), digest)


def _parse_sample(row: dict[str, Any]) -> SampleEntry:
    members = {name: _parse_member(*place) for name, place in row["members"].items()}
    t, h, w = map(int, row["shape"])
    shape: Shape = (t, h, w)
    return SampleEntry(str(row["key"]), shape, members, float(row["fps"]) if "fps" in row else None)
