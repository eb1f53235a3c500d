"""The shard schema: tar files, and beside them an index that records what they must contain.

A shard set is a folder::

    index.json                what shards each split has, with size, checksum and sample counts per shape
    train-000000.tar          a WebDataset shard: KEY.mp4, KEY.json, KEY.mp4, ...
    train-000000.index.json   its sidecar: offset, length and checksum of every member
    validation-000000.tar     ...

A sample's further members are read where they are there: ``.txt`` (a caption), ``.latents.safetensors`` (see
``StoredLatents``) and ``.text.safetensors`` (see ``StoredText``). Instead of ``.mp4`` there may be a picture: ``.jpg``,
``.png`` or ``.webp`` is a clip of one frame.

WebDataset readers need the ``.tar`` files alone. The index makes random access possible, and makes damage visible: a
tar cut at a member's edge or with a flipped bit is otherwise read without a word.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import xxhash

from vdm.data.storage import Folder, open_folder

Data = TypeVar("Data", bound=bytes | bytearray | memoryview)

Shape = tuple[int, int, int]
"""Size of a clip: (t frames, h rows, w columns)."""

INDEX_NAME = "index.json"
EMPTY_TEXT_NAME = "empty_text.safetensors"
"""File in a set's folder with the text embedding of the empty caption; see ``StoredText``."""
FORMAT = "vdm-shards"
VERSION = 2


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
    fps: float | None = None
    """Frames per second, where no ``.json`` of ours says it."""


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
    keys: str | None = None
    """``digest_of_keys`` of its samples; indices of earlier versions lack it."""

    @property
    def num_samples(self) -> int:
        """Number of samples of all shapes."""
        return sum(self.shapes.values())


@dataclass(frozen=True)
class StoredLatents:
    """The latents that every sample of a set has beside its clip, in ``KEY.latents.safetensors``.

    That file has the tensor ``latents`` (c t h w), what the encoder returns for the clip; if it has ``std`` of the same
    shape too, ``latents`` is the mean of a normal distribution and ``std`` its standard deviation.
    """

    encoder: Mapping[str, Any]
    """What tells the encoder from others, as its ``identity()`` says: checksum of its weights, scale.

    It may say more for people to read, such as ``name``; only what ``identity()`` has is compared.
    """
    shapes: Mapping[Shape, tuple[int, int, int, int]]
    """Channels, frames, rows and columns of the latents, by shape of the clip."""


@dataclass(frozen=True)
class StoredText:
    """The text embeddings that every sample of a set has beside its clip, in ``KEY.text.safetensors``.

    That file has the tensors ``tokens`` (l d), an embedding of each token without padding, and ``pooled`` (d): what the
    text encoder returns for the sample's caption. ``EMPTY_TEXT_NAME`` in the set's folder has the same tensors for the
    empty caption, which stands for "no condition". ``vdm.data.text_embeddings`` writes and reads such files.
    """

    encoder: Mapping[str, Any]
    """What tells the text encoder from others, as its ``identity()`` says: checksum of its weights, ``max_tokens``.

    It may say more for people to read, such as ``name``; only what ``identity()`` has is compared.
    """
    channels: int
    """Width d of the embeddings."""
    empty_checksum: str
    """``checksum`` of ``EMPTY_TEXT_NAME``."""


@dataclass(frozen=True)
class ShardIndex:
    """What a shard set consists of, wherever it lies."""

    splits: Mapping[str, tuple[ShardEntry, ...]]
    """Shards of each split (``"train"``, ``"validation"``), in order."""
    labels: tuple[str, ...] = ()
    """Names of the classes; a sample's label is an index into them."""
    fps: float | None = None
    """Frames per second of every clip, or None where clips differ."""
    latents: StoredLatents | None = None
    """What the samples have beside clips, if so."""
    text: StoredText | None = None
    """What the samples have beside captions, if so."""

    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards of all splits."""
        return tuple(shard for shards in self.splits.values() for shard in shards)

    def num_samples(self, split: str) -> int:
        """Number of samples in ``split``."""
        return sum(shard.num_samples for shard in self.splits[split])


class DamagedSample(ValueError):  # noqa: N818 (what it is, rather than that it is an error)
    """A sample whose bytes are not those that the index records."""


def checksum(data: bytes | bytearray | memoryview) -> str:
    """Return the 128-bit XXH3 digest of ``data`` in hexadecimal.

    It finds damage, at memory's speed (a cryptographic digest took a third of the time of reading latents); it is no
    proof against people who want to deceive.
    """
    return xxhash.xxh3_128_hexdigest(data)


def file_checksum(path: Path) -> str:
    """Return what ``checksum`` returns for the content of a file, without holding it in memory."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_index(path: str | Path | Folder, check_sizes: bool = True) -> ShardIndex:
    """Read a shard set's index.

    Args:
        path: Folder of the set, or its URL.
        check_sizes: Whether to look that every shard is there with the size recorded.

    Raises:
        ValueError: In one line, if there is no usable index or a shard is missing or of another size.
    """
    folder = _folder(path)
    index = _parse_index(folder.path_of(INDEX_NAME), _read_index_file(folder))
    if check_sizes:
        _check_sizes(folder, index)
    return index


def write_index(path: Path, index: ShardIndex) -> None:
    """Write ``index.json`` into the folder of a set; a reader sees the old or the new one, never a part."""
    splits = {split: [shard_to_json(shard) for shard in shards] for split, shards in index.splits.items()}
    content = {"format": FORMAT, "version": VERSION, "fps": index.fps, "labels": index.labels, "splits": splits}
    if index.latents is not None:
        shapes = {_shape_name(shape): latents for shape, latents in index.latents.shapes.items()}
        content["latents"] = {"encoder": dict(index.latents.encoder), "shapes": shapes}
    if index.text is not None:
        content["text"] = asdict(index.text)
    write_json(path / INDEX_NAME, content, indent=1)


def shard_to_json(shard: ShardEntry) -> dict[str, Any]:
    """Return what the index holds of one shard as plain JSON values."""
    shapes = {_shape_name(shape): count for shape, count in sorted(shard.shapes.items())}
    row = {"name": shard.name, "num_bytes": shard.num_bytes, "checksum": shard.checksum, "shapes": shapes}
    return row if shard.keys is None else {**row, "keys": shard.keys}


def shard_from_json(row: Mapping[str, Any]) -> ShardEntry:
    """Invert ``shard_to_json``.

    Raises:
        KeyError, TypeError, ValueError: If ``row`` is something else.
    """
    if Path(row["name"]).name != row["name"]:
        raise ValueError(f"shard name {row['name']!r} is not a plain file name")
    shapes = {_parse_shape(name.split("x")): int(count) for name, count in row["shapes"].items()}
    keys = str(row["keys"]) if "keys" in row else None
    return ShardEntry(row["name"], int(row["num_bytes"]), str(row["checksum"]), shapes, keys)


def sidecar_name(shard_name: str) -> str:
    """Return the name of a shard's sidecar: ``train-000000.index.json`` for ``train-000000.tar``."""
    return f"{shard_name.removesuffix('.tar')}.index.json"


def read_samples(path: str | Path | Folder, shard: ShardEntry) -> tuple[SampleEntry, ...]:
    """Read the sidecar of a shard.

    Raises:
        ValueError: In one line, if it is missing, malformed or at odds with the index.
        OSError: If the storage does not give it.
    """
    where = _folder(path).path_of(sidecar_name(shard.name))
    return _checked_samples(where, read_sidecar(path, shard.name), shard)


def parse_samples(where: str, data: bytes | bytearray, shard: ShardEntry) -> tuple[SampleEntry, ...]:
    """Return what the sidecar of a shard says.

    Args:
        where: Path of the sidecar, for messages.
        data: Its content.
        shard: What the index says of the shard.

    Raises:
        ValueError: In one line, if it is malformed or at odds with the index.
    """
    return _checked_samples(where, _parse_sidecar(where, data), shard)


def _checked_samples(where: str, samples: tuple[SampleEntry, ...], shard: ShardEntry) -> tuple[SampleEntry, ...]:
    if count_shapes(samples) != dict(shard.shapes):
        raise ValueError(
            f"{where}: lists {len(samples)} samples where {INDEX_NAME} counts {shard.num_samples}, or other shapes; "
            "build the set again"
        )
    return samples


def read_sidecar(path: str | Path | Folder, shard_name: str) -> tuple[SampleEntry, ...]:
    """Read the sidecar of a shard that no index speaks of; see ``read_samples``."""
    folder = _folder(path)
    sidecar = folder.path_of(sidecar_name(shard_name))
    try:
        data = folder.read(sidecar_name(shard_name))
    except FileNotFoundError:
        raise ValueError(f"{sidecar}: no such file; build the set again") from None
    return _parse_sidecar(sidecar, data)


def _parse_sidecar(where: str, data: bytes | bytearray) -> tuple[SampleEntry, ...]:
    content = _parse_json(where, data)
    try:
        return tuple(_parse_sample(row) for row in content["samples"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: is not a sidecar of vdm shards ({error!r}); build the set again") from None


def write_samples(path: Path, shard_name: str, samples: Sequence[SampleEntry], durable: bool = True) -> None:
    """Write the sidecar of a shard; for ``durable`` see ``write_json``."""
    rows = [_sample_to_json(sample) for sample in samples]
    write_json(Path(path) / sidecar_name(shard_name), {"samples": rows}, durable=durable)


def _sample_to_json(sample: SampleEntry) -> dict[str, Any]:
    members = {name: [m.offset, m.length, m.checksum] for name, m in sample.members.items()}
    row = {"key": sample.key, "shape": sample.shape, "members": members}
    return row if sample.fps is None else {**row, "fps": sample.fps}


def count_shapes(samples: Sequence[SampleEntry]) -> dict[Shape, int]:
    """Return the number of samples of each shape."""
    counts: dict[Shape, int] = {}
    for sample in samples:
        counts[sample.shape] = counts.get(sample.shape, 0) + 1
    return counts


def digest_of_keys(samples: Sequence[SampleEntry]) -> str:
    """Return a digest of the samples' keys in their order: it tells which samples a shard has, whatever their bytes."""
    return checksum(json.dumps([sample.key for sample in samples]).encode())


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
    return check_member(file.read(member.length), shard, entry, extension)


def check_member(data: Data, shard: str, entry: SampleEntry, extension: str) -> Data:
    """Return what was read of a sample's file if it is what the index records.

    Raises:
        DamagedSample: If not.
    """
    member = entry.members[extension]
    if len(data) != member.length:
        reason = f"{len(data)} bytes where the index records {member.length}; the shard is cut short"
    elif checksum(data) != member.checksum:
        reason = "its checksum is not the one in the index; the shard is damaged"
    else:
        return data
    raise DamagedSample(f"{shard}: {entry.key}.{extension} at byte {member.offset}: {reason}")


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


def _shape_name(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _parse_shape(values: Sequence[Any]) -> Shape:
    t, h, w = (int(value) for value in values)
    return t, h, w


def _folder(path: str | Path | Folder) -> Folder:
    return open_folder(path) if isinstance(path, str | Path) else path


def _read_index_file(folder: Folder) -> dict[str, Any]:
    path = folder.path_of(INDEX_NAME)
    place = path.removesuffix(f"/{INDEX_NAME}")
    try:
        return _parse_json(path, folder.read(INDEX_NAME))
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_remote and not Path(place).is_dir():
            raise ValueError(
                f"{place}: no such folder of shards; `vdm-data build input=VIDEOS output={place}` makes one"
            ) from None
        raise ValueError(
            f"{place}: has no {INDEX_NAME}; `vdm-data build input=VIDEOS output=NEW_FOLDER` writes one, "
            f"`vdm-data index FOLDER` makes one for tars from elsewhere"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error}") from None


def _parse_index(where: str, content: dict[str, Any]) -> ShardIndex:
    if content.get("format") != FORMAT:
        raise ValueError(f"{where}: is not an index of vdm shards (no 'format': '{FORMAT}')")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{where}: has version {content.get('version')!r}, this program reads {VERSION}; build the set again"
        )
    try:
        splits = {split: tuple(map(shard_from_json, shards)) for split, shards in content["splits"].items()}
        fps = None if content["fps"] is None else float(content["fps"])
        latents = _parse_latents(content["latents"]) if "latents" in content else None
        text = _parse_text(content["text"]) if "text" in content else None
        return ShardIndex(splits=splits, labels=tuple(content["labels"]), fps=fps, latents=latents, text=text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: is malformed ({error!r}); build the set again") from None


def _parse_latents(content: dict[str, Any]) -> StoredLatents:
    shapes: dict[Shape, tuple[int, int, int, int]] = {}
    for name, latents in content["shapes"].items():
        c, t, h, w = map(int, latents)
        shapes[_parse_shape(name.split("x"))] = (c, t, h, w)
    return StoredLatents(dict(content["encoder"]), shapes)


def _parse_text(content: dict[str, Any]) -> StoredText:
    return StoredText(dict(content["encoder"]), int(content["channels"]), str(content["empty_checksum"]))


def _parse_sample(row: dict[str, Any]) -> SampleEntry:
    members = {name: Member(int(m[0]), int(m[1]), str(m[2])) for name, m in row["members"].items()}
    fps = float(row["fps"]) if "fps" in row else None
    return SampleEntry(str(row["key"]), _parse_shape(row["shape"]), members, fps)


def _parse_json(where: str, data: bytes | bytearray) -> dict[str, Any]:
    try:
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("a JSON object was expected")
        return content
    except ValueError as error:
        raise ValueError(f"{where}: is not JSON of a shard set ({error})") from None


def _check_sizes(folder: Folder, index: ShardIndex) -> None:
    shards = index.shards()
    try:
        sizes = folder.sizes([shard.name for shard in shards])
    except OSError as error:
        raise ValueError(f"{folder.path_of('')}: can't be listed: {error}") from None
    for shard in shards:
        if shard.name not in sizes:
            raise ValueError(
                f"{folder.path_of(shard.name)}: this shard of the index is missing; `vdm-data build` again "
                "restores it, check_shards=false trains on the others"
            )
        if (found := sizes[shard.name]) not in (None, shard.num_bytes):
            raise ValueError(
                f"{folder.path_of(shard.name)}: has {found} bytes where the index records {shard.num_bytes}; "
                "`vdm-data verify` lists the faults, check_shards=false trains on what is whole"
            )
