"""The index of a shard set: ``index.json`` says what the set is, ``shards.parquet`` lists its shards."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vdm.data.shard_table import ShardTable
from vdm.data.shards import HOW_TO_REMAKE, Shape, ShardEntry, StoredLatents, StoredText, checksum, parse_shape
from vdm.data.storage import Folder, folder_of
from vdm.files import MALFORMED, replacing, write_json

INDEX_NAME = "index.json"
SHARDS_NAME = "shards.parquet"
FORMAT = "vdm-shards"
VERSION = 3


@dataclass(frozen=True)
class ShardIndex:
    """What a shard set consists of, wherever it lies."""

    splits: Mapping[str, ShardTable]
    """Shards of each split (``"train"``, ``"validation"``), in order."""
    labels: tuple[str, ...] = ()
    """Names of the classes; a sample's label is an index into them."""
    fps: float | None = None
    """Frames per second of every clip, or None where clips differ."""
    latents: StoredLatents | None = None
    """What the samples have beside clips, if so."""
    text: StoredText | None = None
    """What the samples have beside captions, if so."""

    @staticmethod
    def of(splits: Mapping[str, Iterable[ShardEntry]], **rest: Any) -> "ShardIndex":
        """Return the index of some shards; ``rest`` as for the constructor."""
        return ShardIndex({split: ShardTable.of(shards) for split, shards in splits.items()}, **rest)

    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards of all splits, each as an object: of a million they take 1 GB."""
        return tuple(shard for shards in self.splits.values() for shard in shards)

    def num_samples(self, split: str) -> int:
        """Number of samples in ``split``."""
        return int(self.splits[split].num_samples.sum())


def read_index(path: str | Path | Folder, check_sizes: bool = True) -> ShardIndex:
    """Read a shard set's index.

    Args:
        path: Folder of the set, or its URL.
        check_sizes: Whether to look that every shard is there with the size recorded.

    Raises:
        ValueError: In one line, if there is no usable index or a shard is missing or of another size.
    """
    folder = folder_of(path)
    content = _read_header(folder)
    index = _parse(folder.path_of(INDEX_NAME), content, _read_shards(folder, content))
    if check_sizes:
        _check_sizes(folder, index)
    return index


def write_index(path: Path, index: ShardIndex) -> None:
    """Write the index into the folder of a set; a reader sees all of it or none, never a part."""
    (path / INDEX_NAME).unlink(missing_ok=True)
    shards = ShardTable.joined(list(index.splits.values())).to_parquet()
    with replacing(path / SHARDS_NAME) as file:
        file.write(shards)
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "fps": index.fps, "labels": index.labels}
    content["splits"] = {split: len(table) for split, table in index.splits.items()}
    content["shards"] = checksum(shards)
    if index.latents is not None:
        shapes = {"x".join(map(str, shape)): latents for shape, latents in index.latents.shapes.items()}
        content["latents"] = {"encoder": dict(index.latents.encoder), "shapes": shapes}
    if index.text is not None:
        content["text"] = asdict(index.text)
    write_json(path / INDEX_NAME, content, indent=1)


def _read_header(folder: Folder) -> dict[str, Any]:
    """Return the content of ``index.json``, if it is of this version."""
    where = folder.path_of(INDEX_NAME)
    place = where.removesuffix(f"/{INDEX_NAME}")
    try:
        content = json.loads(folder.read(INDEX_NAME))
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
        raise ValueError(f"{where}: can't be read: {error}") from None
    except ValueError as error:
        raise ValueError(f"{where}: is not JSON of a shard set ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{where}: is not an index of vdm shards (no 'format': '{FORMAT}')")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{where}: has version {content.get('version')!r}, this program reads {VERSION}; {HOW_TO_REMAKE}"
        )
    return content


def _read_shards(folder: Folder, header: Mapping[str, Any]) -> ShardTable:
    where = folder.path_of(SHARDS_NAME)
    try:
        data = folder.read(SHARDS_NAME)
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
            _split(shards, {str(split): int(count) for split, count in header["splits"].items()}),
            labels=tuple(header["labels"]),
            fps=None if header["fps"] is None else float(header["fps"]),
            latents=_parse_latents(header["latents"]) if "latents" in header else None,
            text=_parse_text(header["text"]) if "text" in header else None,
        )
    except MALFORMED as error:
        raise ValueError(f"{where}: is malformed ({error!r}); {HOW_TO_REMAKE}") from None


def _split(shards: ShardTable, counts: Mapping[str, int]) -> dict[str, ShardTable]:
    if min(counts.values(), default=0) < 0 or sum(counts.values()) != len(shards):
        raise ValueError(f"splits of {dict(counts)} shards where {SHARDS_NAME} lists {len(shards)}")
    splits: dict[str, ShardTable] = {}
    start = 0
    for split, count in counts.items():
        splits[split] = shards[start : start + count]
        start += count
    return splits


def _parse_latents(content: Mapping[str, Any]) -> StoredLatents:
    shapes: dict[Shape, tuple[int, int, int, int]] = {}
    for name, latents in content["shapes"].items():
        c, t, h, w = map(int, latents)
        shapes[parse_shape(name)] = (c, t, h, w)
    return StoredLatents(dict(content["encoder"]), shapes)


def _parse_text(content: Mapping[str, Any]) -> StoredText:
    return StoredText(dict(content["encoder"]), int(content["channels"]), str(content["empty_checksum"]))


def _check_sizes(folder: Folder, index: ShardIndex) -> None:
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
                "check_shards=false trains on the others"
            )
        if (found := sizes[name]) not in (None, recorded):
            raise ValueError(
                f"{folder.path_of(name)}: has {found} bytes where the index records {recorded}; "
                "`vdm-data verify` lists the faults, check_shards=false trains on what is whole"
            )
