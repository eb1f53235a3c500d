"""The index of a shard set: ``index.json`` describes the set, ``shards.parquet`` lists its shards."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vdm.data.shard_table import MAX_SHARDS, ShardTable
from vdm.data.shards import (
    CHECKSUM_BYTES,
    HOW_TO_REMAKE,
    Shape,
    ShardEntry,
    StoredLatents,
    StoredText,
    checksum,
    parse_shape,
)
from vdm.data.storage import Folder, folder_of, read_whole
from vdm.files import MALFORMED, replacing, write_json
from vdm.found_instead import found_instead
from vdm.json_values import known_version, mapping, parse_json, positive_number, sequence, text, whole_number

INDEX_NAME = "index.json"
SHARDS_NAME = "shards.parquet"
FORMAT = "vdm-shards"
VERSION = 3
STORED_VERSION = 1
"""Version of the entries on latents and text embeddings."""
MAX_INDEX_BYTES = 1 << 26
MAX_SHARDS_BYTES = 1 << 30
"""Of ``shards.parquet``: a million shards take 80 MB."""
MAX_CHANNELS = 1 << 16
"""Of text embeddings."""
MAX_LATENTS = 1 << 30
"""Numbers in the latents of a clip."""
_MAX_CLIPS = 1 << 53
MAX_TEXT = 1000
"""Characters of the name of a split or a class."""


@dataclass(frozen=True)
class ShardIndex:
    """The content of a shard set."""

    splits: Mapping[str, ShardTable]
    """Shards of each split (``"train"``, ``"validation"``), in order."""
    labels: tuple[str, ...] = ()
    """Names of the classes; a sample's label is an index into them."""
    fps: float | None = None
    """Frames per second of every clip, or None where clips differ."""
    latents: StoredLatents | None = None
    """The latents that the samples have beside clips, or None."""
    text: StoredText | None = None
    """The text embeddings that the samples have beside captions, or None."""
    num_uncaptioned: Mapping[str, int] | None = None
    """How many clips of each split have no caption; None if unknown, as in sets of earlier versions."""
    checksum: str | None = field(default=None, compare=False)
    """Checksum of ``shards.parquet``, from which that of each file follows; None of an index that was not read."""

    @staticmethod
    def of(splits: Mapping[str, Iterable[ShardEntry]], **rest: Any) -> "ShardIndex":
        """Return the index of some shards; ``rest`` as for the constructor."""
        return ShardIndex({split: ShardTable.of(shards) for split, shards in splits.items()}, **rest)

    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards of all splits as objects: a million take 1 GB."""
        return tuple(shard for shards in self.splits.values() for shard in shards)

    def chosen(self, names: Collection[str]) -> "ShardIndex":
        """Return the index of some shards alone; a split of which none is named keeps all of its shards.

        Raises:
            KeyError: If there is no shard of a name.
        """
        missing = set(names).difference(*(table.names for table in self.splits.values()))
        if missing:
            raise KeyError(min(missing))
        parts = {split: table.chosen(names) for split, table in self.splits.items()}
        splits = {split: parts[split] if len(parts[split]) else table for split, table in self.splits.items()}
        return replace(self, splits=splits, num_uncaptioned=None)

    def num_samples(self, split: str) -> int:
        """Number of samples in ``split``."""
        return int(self.splits[split].num_samples.sum())


def read_index(path: str | Path | Folder, check_sizes: bool = True) -> ShardIndex:
    """Read a shard set's index.

    Args:
        path: Folder of the set, or its URL.
        check_sizes: Whether to check that every shard exists with the recorded size.

    Raises:
        ValueError: In one line, if there is no usable index or a shard is missing or of another size.
    """
    folder = folder_of(path)
    content = _read_header(folder)
    index = _parse(folder.path_of(INDEX_NAME), content, _read_shards(folder, content))
    if check_sizes:
        check_sizes_of(folder, index)
    return index


def write_index(path: Path, index: ShardIndex) -> None:
    """Write the index into the folder of a set; a reader sees the complete index or none."""
    (path / INDEX_NAME).unlink(missing_ok=True)
    shards = ShardTable.joined(list(index.splits.values())).to_parquet()
    with replacing(path / SHARDS_NAME) as file:
        file.write(shards)
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "fps": index.fps, "labels": index.labels}
    content["splits"] = {split: len(table) for split, table in index.splits.items()}
    content["shards"] = checksum(shards)
    if index.latents is not None:
        shapes = {"x".join(map(str, shape)): latents for shape, latents in index.latents.shapes.items()}
        encoder = dict(index.latents.encoder)
        content["latents"] = {"version": STORED_VERSION, "encoder": encoder, "shapes": shapes}
    if index.text is not None:
        content["text"] = {"version": STORED_VERSION, **asdict(index.text)}
    if index.num_uncaptioned is not None:
        content["num_uncaptioned"] = dict(index.num_uncaptioned)
    write_json(path / INDEX_NAME, content, indent=1)


def _read_header(folder: Folder) -> dict[str, Any]:
    """Return the content of ``index.json``, if it is of this version."""
    where = folder.path_of(INDEX_NAME)
    place = where.removesuffix(f"/{INDEX_NAME}")
    try:
        content = parse_json(read_whole(folder, INDEX_NAME, MAX_INDEX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        if not folder.is_remote and not Path(place).exists():
            raise ValueError(
                f"{place}: no such folder of shards; `vdm-data build input=VIDEOS output={place}` makes one"
            ) from None
        if not folder.is_remote and (other := found_instead(Path(place))):
            raise ValueError(f"{place}: not a set of shards: it has no {INDEX_NAME}{other}") from None
        raise ValueError(
            f"{place}: has no {INDEX_NAME}; `vdm-data build input=VIDEOS output=NEW_FOLDER` writes one, "
            f"`vdm-data index FOLDER` makes one for tars from elsewhere"
        ) from None
    except OSError as error:
        raise ValueError(f"{where}: can't be read: {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: is not JSON of a shard set ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{where}: is not an index of vdm shards (no 'format': '{FORMAT}')")
    try:
        version = known_version(content.get("version"), VERSION, "the index")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if version != VERSION:
        raise ValueError(f"{where}: has version {version}, this program reads {VERSION}; {HOW_TO_REMAKE}")
    return content


def _read_shards(folder: Folder, header: Mapping[str, Any]) -> ShardTable:
    where = folder.path_of(SHARDS_NAME)
    try:
        data = read_whole(folder, SHARDS_NAME, MAX_SHARDS_BYTES)
        if checksum(data) != header.get("shards"):
            raise ValueError(f"its checksum is not the one in {INDEX_NAME}: it is damaged, or another set's")
        return ShardTable.from_parquet(data)
    except FileNotFoundError:
        raise ValueError(f"{where}: no such file; {HOW_TO_REMAKE}") from None
    except OSError as error:
        raise ValueError(f"{where}: can't be read: {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {HOW_TO_REMAKE}") from None


def _parse(where: str, header: Mapping[str, Any], shards: ShardTable) -> ShardIndex:
    try:
        return ShardIndex(
            _split(shards, _counts(header["splits"], MAX_SHARDS)),
            labels=tuple(text(label, MAX_TEXT) for label in sequence(header["labels"])),
            fps=None if header["fps"] is None else positive_number(header["fps"]),
            latents=_parse_latents(header["latents"]) if "latents" in header else None,
            text=_parse_text(header["text"]) if "text" in header else None,
            num_uncaptioned=_counts(header["num_uncaptioned"], _MAX_CLIPS) if "num_uncaptioned" in header else None,
            checksum=header["shards"],
        )
    except MALFORMED as error:
        raise ValueError(f"{where}: is malformed ({error!r}); {HOW_TO_REMAKE}") from None


def _counts(content: object, most: int) -> dict[str, int]:
    """Return a number of each split, such as that of its shards."""
    return {text(split, MAX_TEXT): whole_number(count, 0, most) for split, count in mapping(content).items()}


def _split(shards: ShardTable, counts: Mapping[str, int]) -> dict[str, ShardTable]:
    if sum(counts.values()) != len(shards):
        raise ValueError(f"splits of {dict(counts)} shards where {SHARDS_NAME} lists {len(shards)}")
    splits: dict[str, ShardTable] = {}
    start = 0
    for split, count in counts.items():
        splits[split] = shards[start : start + count]
        start += count
    return splits


def _parse_latents(content: Mapping[str, Any]) -> StoredLatents:
    known_version(content.get("version", 1), STORED_VERSION, "what it says of latents")
    shapes: dict[Shape, tuple[int, int, int, int]] = {}
    for name, latents in mapping(content["shapes"]).items():
        c, t, h, w = (whole_number(size, 1, MAX_LATENTS) for size in sequence(latents))
        shapes[parse_shape(name)] = c, t, h, w
        whole_number(c * t * h * w, 1, MAX_LATENTS)
    return StoredLatents(mapping(content["encoder"]), shapes)


def _parse_text(content: Mapping[str, Any]) -> StoredText:
    known_version(content.get("version", 1), STORED_VERSION, "what it says of text embeddings")
    channels = whole_number(content["channels"], 1, MAX_CHANNELS)
    return StoredText(mapping(content["encoder"]), channels, text(content["empty_checksum"], 2 * CHECKSUM_BYTES))


def check_sizes_of(folder: Folder, index: ShardIndex) -> None:
    """Check that every shard of an index exists with the recorded size.

    Raises:
        ValueError: In one line, if one is not.
    """
    shards = ShardTable.joined(list(index.splits.values()))
    names = shards.names
    try:
        sizes = folder.sizes(names)
    except OSError as error:
        raise ValueError(f"{folder.path_of('')}: can't be listed: {error}") from None
    for name, recorded in zip(names, shards.num_bytes.tolist(), strict=True):
        if name not in sizes:
            raise ValueError(
                f"{folder.path_of(name)}: this shard of the index is missing; `vdm-data build` again restores it, "
                "data.check_shards=false trains on the others"
            )
        if (found := sizes[name]) not in (None, recorded):
            raise ValueError(
                f"{folder.path_of(name)}: has {found} bytes where the index records {recorded}; "
                "`vdm-data verify` lists the faults, data.check_shards=false trains on what is whole"
            )
