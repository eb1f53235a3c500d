"""``vdm-data verify``: every byte of a set of shards against its index."""

import json
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from omegaconf import DictConfig, OmegaConf

from data_pipelines.output_folder import SETTINGS_NAME
from data_pipelines.progress import progress_bar
from data_pipelines.set_settings import VerifySettings
from data_pipelines.workers import WorkerDiedError, map_in_processes
from vdm.config.options import parse
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_picture
from vdm.data.index import ShardIndex, read_index
from vdm.data.latents import UnusableLatentsError, read_latents
from vdm.data.reading import LATENTS, TEXT, VIDEO, pixels_of
from vdm.data.shards import (
    EMPTY_TEXT_NAME,
    DamagedSample,
    SampleEntry,
    ShardEntry,
    StoredLatents,
    StoredText,
    file_checksum,
    read_member,
)
from vdm.data.sidecars import read_samples
from vdm.data.text_embeddings import UnusableTextError, read_text
from vdm.files import MALFORMED


@dataclass(frozen=True)
class Rules:
    """What the samples of a set must be like."""

    is_ours: bool
    """Whether this program built the set; of others only what training needs is asked."""
    num_labels: int
    """Number of classes."""
    latents: StoredLatents | None
    text: StoredText | None
    decode: bool
    """Whether to decode every clip too."""

    def required(self, sample: SampleEntry) -> tuple[str, ...]:
        """Return the extensions of what a sample must have."""
        clip = (VIDEO, "json") if self.is_ours else (pixels_of(sample.members),)
        return clip + (LATENTS,) * (self.latents is not None) + (TEXT,) * (self.text is not None)


@dataclass(frozen=True)
class CheckedShard:
    """What was found in one shard."""

    faults: tuple[str, ...]
    """In one line each, without the shard's name."""
    keys: tuple[str, ...]
    """Of its samples."""


def run(config: DictConfig) -> int:
    """Verify what ``conf/verify.yaml`` says; see ``verify``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return verify(parse(VerifySettings, values))


def verify(settings: VerifySettings) -> int:
    """Check a set of shards, all of it anew; see ``verify_set``."""
    check_all = partial(_check_all, num_workers=settings.num_workers)
    return verify_set(settings.input, settings.decode, check_all)


def verify_set(
    path: Path,
    decode: bool,
    check_all: Callable[[Path, Sequence[ShardEntry], Rules], Mapping[str, CheckedShard]],
) -> int:
    """Check a set of shards and print every fault in a line on stderr.

    Args:
        path: Folder of the set.
        decode: Whether to decode every clip too.
        check_all: Calls ``check_shard`` for all of its shards, wherever that is; returns what was found by their names.

    Returns:
        0 if there is none, 1 otherwise.

    Raises:
        ValueError: In one line, if there is no index to check against.
    """
    index = read_index(path, check_sizes=False)
    is_ours = (path / SETTINGS_NAME).exists()
    shards = index.shards()
    found = check_all(path, shards, Rules(is_ours, len(index.labels), index.latents, index.text, decode))
    faults = [f"{shard.name}: {fault}" for shard in shards for fault in found[shard.name].faults]
    faults += _duplicates(found) if is_ours else []
    faults += _strays(path, index) + _empty_text(path, index)
    for fault in faults:
        print(fault, file=sys.stderr)
    num_clips = sum(shard.num_samples for shard in shards)
    mend = "delete the shards named and build again to mend the set"
    advice = mend if is_ours else "the samples named are left out in training"
    counts = f"clips: {num_clips}, shards: {len(shards)}, faults: {len(faults)}"
    print(f"{path}: {counts}" + (f"; {advice}" if faults else ""))
    return int(bool(faults))


def _check_all(
    path: Path, shards: Sequence[ShardEntry], rules: Rules, num_workers: int | None
) -> dict[str, CheckedShard]:
    found: dict[str, CheckedShard] = {}
    with progress_bar(len(shards), "verifying", "shard") as bar:
        for shard, result in map_in_processes(partial(check_shard, path=path, rules=rules), shards, num_workers):
            died = isinstance(result, WorkerDiedError)
            found[shard.name] = CheckedShard((str(result),), ()) if died else result
            bar.update()
    return found


def _duplicates(found: Mapping[str, CheckedShard]) -> list[str]:
    counts = Counter(key for shard in found.values() for key in shard.keys)
    return [f"{key}: {count} samples have this key" for key, count in counts.items() if count > 1]


def _strays(folder: Path, index: ShardIndex) -> list[str]:
    """Tars that a reader of ``*.tar`` would find but the index does not know."""
    known = {shard.name for shard in index.shards()}
    return [f"{path.name}: is not in the index" for path in sorted(folder.glob("*.tar")) if path.name not in known]


def _empty_text(folder: Path, index: ShardIndex) -> list[str]:
    if index.text is None:
        return []
    try:
        intact = file_checksum(folder / EMPTY_TEXT_NAME) == index.text.empty_checksum
    except OSError as error:
        return [f"{EMPTY_TEXT_NAME}: can't be read: {error.strerror}"]
    return [] if intact else [f"{EMPTY_TEXT_NAME}: its checksum is not the one in the index"]


def check_shard(shard: ShardEntry, path: Path, rules: Rules) -> CheckedShard:
    """Check one shard against the index and its sidecar.

    Args:
        shard: What the index says of it.
        path: Folder of the set.
        rules: What samples must be like.
    """
    faults: list[str] = []
    tar = path / shard.name
    try:
        num_bytes = tar.stat().st_size
        if num_bytes != shard.num_bytes:
            faults.append(f"has {num_bytes} bytes where the index records {shard.num_bytes}")
        elif file_checksum(tar) != shard.checksum:
            faults.append("its checksum is not the one in the index")
        samples = read_samples(path, shard)
        with tar.open("rb") as file:
            for sample in samples:
                faults += _check_sample(file, sample, rules)
        return CheckedShard(tuple(faults), tuple(sample.key for sample in samples))
    except OSError as error:
        return CheckedShard((*faults, f"can't be read: {error.strerror}"), ())
    except ValueError as error:
        return CheckedShard((*faults, str(error)), ())


def _check_sample(file: BinaryIO, sample: SampleEntry, rules: Rules) -> Iterator[str]:
    """Yield the faults of one sample: headers, which random access passes over, content, and what it means."""
    labels: dict[str, bytes] = {}
    for extension in dict.fromkeys((*rules.required(sample), *sample.members)):
        name = f"{sample.key}.{extension}"
        try:
            data = read_member(file, name, sample, extension)
            yield from _check_header(file, sample, extension, rules.is_ours)
            if extension in ("json", "txt"):
                labels[extension] = data
            elif extension == pixels_of(sample.members) and rules.decode:
                (decode_clip if extension == VIDEO else decode_picture)(data, sample.shape)
            elif extension == LATENTS and rules.latents is not None:
                read_latents(data, rules.latents.shapes[sample.shape], seed=0, position=0)
            elif extension == TEXT and rules.text is not None:
                read_text(data, rules.text.channels)
        except (DamagedSample, UndecodableClipError, UnusableLatentsError, UnusableTextError) as error:
            yield str(error) if isinstance(error, DamagedSample) else f"{name}: {error}"
    if not rules.is_ours:
        yield from (f"{sample.key}: {fault}" for fault in _check_foreign_labels(labels))
    elif "json" in labels:
        name = f"{sample.key}.json"
        yield from (f"{name}: {fault}" for fault in _check_metadata(labels["json"], sample, rules.num_labels))


def _check_header(file: BinaryIO, sample: SampleEntry, extension: str, is_ours: bool) -> Iterator[str]:
    """A reader that goes from header to header loses what stands behind a damaged one without a word.

    Other programs spell names in other ways: with ``./``, or long ones in a header of their own.
    """
    member, name = sample.members[extension], f"{sample.key}.{extension}"
    file.seek(member.offset - tarfile.BLOCKSIZE)
    try:
        header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        yield f"{name}: its header in the tar is damaged ({error})"
        return
    if header.size != member.length or (is_ours and header.name != name):
        yield f"{name}: its header in the tar says {header.name}, {header.size} bytes"


def _check_foreign_labels(labels: Mapping[str, bytes]) -> Iterator[str]:
    """What training can make no caption of."""
    try:
        metadata = json.loads(labels.get("json", b"{}"))
        if not isinstance(metadata, dict):
            yield "its .json is no object of names and values"
        elif metadata.get("caption") is None:
            labels.get("txt", b"").decode()
    except MALFORMED as error:
        yield f"its metadata is malformed ({error})"


def _check_metadata(data: bytes, sample: SampleEntry, num_labels: int) -> Iterator[str]:
    try:
        metadata = json.loads(data)
        shape = tuple(metadata[name] for name in ("num_frames", "height", "width"))
        caption, label = metadata["caption"], metadata["label"]
    except MALFORMED as error:
        yield f"is not the metadata of a clip ({error!r})"
        return
    if shape != sample.shape:
        yield f"says {shape} frames, rows and columns where the index records {sample.shape}"
    if not isinstance(caption, str):
        yield f"has the caption {caption!r}, which is no text"
    if label is not None and not (isinstance(label, int) and 0 <= label < num_labels):
        yield f"has the label {label!r}, which is none of the {num_labels} classes"
