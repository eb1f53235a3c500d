"""The shard schema: tar files, and beside them an index that records what they must contain.

A shard set is a folder::

    index.json                what shards each split has, with size, checksum and sample counts per shape
    train-000000.tar          a WebDataset shard: KEY.mp4, KEY.json, KEY.mp4, ...
    train-000000.index.json   its sidecar: offset, length and checksum of every member
    validation-000000.tar     ...

WebDataset readers need the ``.tar`` files alone. The index makes random access possible, and makes damage visible: a
tar cut at a member's edge or with a flipped bit is otherwise read without a word.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

Shape = tuple[int, int, int]
"""Size of a clip: (t frames, h rows, w columns)."""

INDEX_NAME = "index.json"
FORMAT = "vdm-shards"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Member:
    """Where one file of a sample lies in its tar."""

    offset: int
    """First byte of the payload, counted from the start of the tar."""
    length: int
    """Bytes of the payload, without the tar's padding."""
    checksum: str
    """``checksum`` of the payload."""


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """One clip of a shard."""

    key: str
    shape: Shape
    members: Mapping[str, Member]
    """By extension, without a dot: ``"mp4"``, ``"json"``."""


@dataclass(frozen=True)
class ShardEntry:
    """What the index says of one shard."""

    name: str
    """File name of the tar in the set's folder."""
    num_bytes: int
    checksum: str
    """``checksum`` of the whole tar."""
    shapes: Mapping[Shape, int]
    """Number of samples of each shape."""

    @property
    def num_samples(self) -> int:
        """Number of samples of all shapes."""
        return sum(self.shapes.values())


@dataclass(frozen=True)
class ShardIndex:
    """What a shard set consists of."""

    path: Path
    """Folder of the set."""
    splits: Mapping[str, tuple[ShardEntry, ...]]
    """Shards of each split (``"train"``, ``"validation"``), in order."""
    labels: tuple[str, ...] = ()
    """Names of the classes; a sample's label is an index into them."""
    fps: float | None = None
    """Frames per second of every clip, or None where clips differ."""

    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards of all splits."""
        return tuple(shard for shards in self.splits.values() for shard in shards)

    def num_samples(self, split: str) -> int:
        """Number of samples in ``split``."""
        return sum(shard.num_samples for shard in self.splits[split])


class DamagedSample(ValueError):  # noqa: N818 (what it is, rather than that it is an error)
    """A sample whose bytes are not those that the index records."""


def checksum(data: bytes) -> str:
    """Return the 128-bit blake2b digest of ``data`` in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_checksum(path: Path) -> str:
    """Return what ``checksum`` returns for the content of a file, without holding it in memory."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_index(path: Path, check_sizes: bool = True) -> ShardIndex:
    """Read a shard set's index.

    Args:
        path: Folder of the set.
        check_sizes: Whether to look that every shard is there with the size recorded.

    Raises:
        ValueError: In one line, if there is no usable index or a shard is missing or of another size.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder of shards; `vdm-data build input=VIDEOS output={path}` makes one")
    if not (path / INDEX_NAME).is_file():
        raise ValueError(f"{path}: has no {INDEX_NAME}; `vdm-data build input=VIDEOS output=NEW_FOLDER` writes one")
    index = _parse_index(path, _read_json(path / INDEX_NAME))
    for shard in index.shards() if check_sizes else ():
        _check_size(path / shard.name, shard.num_bytes)
    return index


def write_index(index: ShardIndex) -> None:
    """Write ``index.json``; a reader sees the old or the new one, never a part."""
    splits = {split: [shard_to_json(shard) for shard in shards] for split, shards in index.splits.items()}
    content = {"format": FORMAT, "version": VERSION, "fps": index.fps, "labels": index.labels, "splits": splits}
    write_json(index.path / INDEX_NAME, content, indent=1)


def shard_to_json(shard: ShardEntry) -> dict[str, Any]:
    """Return what the index holds of one shard as plain JSON values."""
    shapes = {"x".join(map(str, shape)): count for shape, count in sorted(shard.shapes.items())}
    return {"name": shard.name, "num_bytes": shard.num_bytes, "checksum": shard.checksum, "shapes": shapes}


def shard_from_json(row: Mapping[str, Any]) -> ShardEntry:
    """Invert ``shard_to_json``.

    Raises:
        KeyError, TypeError, ValueError: If ``row`` is something else.
    """
    if Path(row["name"]).name != row["name"]:
        raise ValueError(f"shard name {row['name']!r} is not a plain file name")
    shapes = {_parse_shape(name.split("x")): int(count) for name, count in row["shapes"].items()}
    return ShardEntry(row["name"], int(row["num_bytes"]), str(row["checksum"]), shapes)


def sidecar_name(shard_name: str) -> str:
    """Return the name of a shard's sidecar: ``train-000000.index.json`` for ``train-000000.tar``."""
    return f"{shard_name.removesuffix('.tar')}.index.json"


def read_samples(path: Path, shard: ShardEntry) -> tuple[SampleEntry, ...]:
    """Read the sidecar of a shard.

    Raises:
        ValueError: In one line, if it is missing, unreadable or at odds with the index.
    """
    samples = read_sidecar(path, shard.name)
    if count_shapes(samples) != dict(shard.shapes):
        raise ValueError(
            f"{Path(path) / sidecar_name(shard.name)}: lists {len(samples)} samples where {INDEX_NAME} counts "
            f"{shard.num_samples}, or other shapes; build the set again"
        )
    return samples


def read_sidecar(path: Path, shard_name: str) -> tuple[SampleEntry, ...]:
    """Read the sidecar of a shard that no index speaks of; see ``read_samples``."""
    sidecar = Path(path) / sidecar_name(shard_name)
    content = _read_json(sidecar)
    try:
        return tuple(_parse_sample(row) for row in content["samples"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{sidecar}: is not a sidecar of vdm shards ({error!r}); build the set again") from None


def write_samples(path: Path, shard_name: str, samples: Sequence[SampleEntry], durable: bool = True) -> None:
    """Write the sidecar of a shard; for ``durable`` see ``write_json``."""
    rows = [
        {
            "key": sample.key,
            "shape": sample.shape,
            "members": {name: [m.offset, m.length, m.checksum] for name, m in sample.members.items()},
        }
        for sample in samples
    ]
    write_json(Path(path) / sidecar_name(shard_name), {"samples": rows}, durable=durable)


def count_shapes(samples: Sequence[SampleEntry]) -> dict[Shape, int]:
    """Return the number of samples of each shape."""
    counts: dict[Shape, int] = {}
    for sample in samples:
        counts[sample.shape] = counts.get(sample.shape, 0) + 1
    return counts


def read_member(file: BinaryIO, shard: str, entry: SampleEntry, extension: str) -> bytes:
    """Read one file of a sample out of an open tar and check it.

    Args:
        file: The tar, open for reading; its position changes.
        shard: Name of the tar, for messages.
        entry: The sample, from the shard's sidecar.
        extension: Which of its files: ``"mp4"`` or ``"json"``.

    Raises:
        DamagedSample: If the bytes are not those recorded.
    """
    member = entry.members.get(extension)
    if member is None:
        raise DamagedSample(f"{shard}: sample {entry.key} has no member .{extension}")
    file.seek(member.offset)
    data = file.read(member.length)
    where = f"{shard}: {entry.key}.{extension} at byte {member.offset}"
    if len(data) != member.length:
        raise DamagedSample(
            f"{where}: {len(data)} bytes where the index records {member.length}; the shard is cut short"
        )
    if checksum(data) != member.checksum:
        raise DamagedSample(f"{where}: its checksum is not the one in the index; the shard is damaged")
    return data


def write_json(path: Path, content: object, indent: int | None = None, durable: bool = True) -> None:
    """Write a JSON file beside its place, then rename it: a reader sees the old or the new one, never a part.

    Args:
        path: The file.
        content: What ``json`` can write.
        indent: As for ``json.dump``.
        durable: Whether to wait until the disk has it, so that this holds after a power failure too.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=indent, ensure_ascii=False)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def _parse_shape(values: Sequence[Any]) -> Shape:
    t, h, w = (int(value) for value in values)
    return t, h, w


def _parse_index(path: Path, content: dict[str, Any]) -> ShardIndex:
    if content.get("format") != FORMAT:
        raise ValueError(f"{path / INDEX_NAME}: is not an index of vdm shards (no 'format': '{FORMAT}')")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path / INDEX_NAME}: has version {content.get('version')!r}, this program reads {VERSION}; "
            "build the set again"
        )
    try:
        splits = {split: tuple(map(shard_from_json, shards)) for split, shards in content["splits"].items()}
        fps = None if content["fps"] is None else float(content["fps"])
        return ShardIndex(path=path, splits=splits, labels=tuple(content["labels"]), fps=fps)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path / INDEX_NAME}: is malformed ({error!r}); build the set again") from None


def _parse_sample(row: dict[str, Any]) -> SampleEntry:
    members = {name: Member(int(m[0]), int(m[1]), str(m[2])) for name, m in row["members"].items()}
    return SampleEntry(str(row["key"]), _parse_shape(row["shape"]), members)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("a JSON object was expected")
        return content
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; build the set again") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON of a shard set ({error})") from None


def _check_size(path: Path, num_bytes: int) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: this shard of the index is missing; `vdm-data build` again restores it")
    if path.stat().st_size != num_bytes:
        raise ValueError(
            f"{path}: has {path.stat().st_size} bytes where the index records {num_bytes}; "
            "`vdm-data verify` lists the faults"
        )
