"""``vdm-data verify``: check every byte of a set of shards against its index."""

import io
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.output_folder import SETTINGS_NAME
from data_pipelines.progress import progress_bar
from data_pipelines.set_settings import VerifySettings
from data_pipelines.workers import WorkerDiedError, map_in_processes
from vdm.cli.next_step import command, say_next
from vdm.config.options import parse
from vdm.data.captions import captions_in, captions_of, parse_metadata
from vdm.data.decoding import UndecodableClipError, check_clip, decode_picture
from vdm.data.index import ShardIndex, read_index
from vdm.data.latents import UnusableLatentsError, read_latents
from vdm.data.member_checks import DamagedSample, check_member_in, read_member
from vdm.data.reading import LATENTS, TEXT, VIDEO, pixels_of
from vdm.data.shards import EMPTY_TEXT_NAME, SampleEntry, ShardEntry, StoredLatents, StoredText, file_checksum
from vdm.data.sidecars import read_samples
from vdm.data.text_embeddings import UnusableTextError, read_text
from vdm.files import MALFORMED
from vdm.json_values import mapping, parse_json, shown
from vdm.regular_files import FilePart, open_regular
from vdm.text import printable


@dataclass(frozen=True)
class Rules:
    """Requirements on the samples of a set."""

    is_ours: bool
    """Whether this program built the set; other sets need only satisfy the requirements of training."""
    num_labels: int
    """Number of classes."""
    latents: StoredLatents | None
    text: StoredText | None
    decode: bool
    """Whether to decode every clip too."""

    def required(self, sample: SampleEntry) -> tuple[str, ...]:
        """Return the extensions of the members that a sample must have."""
        clip = (VIDEO, "json") if self.is_ours else (pixels_of(sample.members),)
        return clip + (LATENTS,) * (self.latents is not None) + (TEXT,) * (self.text is not None)


@dataclass(frozen=True)
class CheckedShard:
    """Result of checking one shard."""

    faults: tuple[str, ...]
    """Faults in one line each, without the name of the shard."""
    keys: tuple[str, ...]
    """Keys of its samples."""


def run(config: DictConfig) -> int:
    """Verify what ``conf/verify.yaml`` says; see ``verify``."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return verify(parse(VerifySettings, values))


def verify(settings: VerifySettings) -> int:
    """Check all of a set of shards; see ``verify_set``."""
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
        check_all: Calls ``check_shard`` for all shards; returns the results by name of the shard.

    Returns:
        0 if there is no fault, 1 otherwise.

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
        print(printable(fault), file=sys.stderr)
    num_clips = sum(shard.num_samples for shard in shards)
    mend = "delete the shards named and build again to mend the set"
    advice = mend if is_ours else "the samples named are left out in training"
    counts = f"clips: {num_clips}, shards: {len(shards)}, faults: {len(faults)}"
    print(f"{printable(path)}: {counts}" + (f"; {advice}" if faults else ""))
    if not faults:
        say_next(command("vdm-data show", str(path)), command("vdm train", data__path=path))
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
    """Return a fault for each tar that is not in the index, but would be found by a reader of ``*.tar``."""
    known = {shard.name for shard in index.shards()}
    return [f"{path.name}: is not in the index" for path in sorted(folder.glob("*.tar")) if path.name not in known]


def _empty_text(folder: Path, index: ShardIndex) -> list[str]:
    if index.text is None:
        return []
    try:
        intact = file_checksum(folder / EMPTY_TEXT_NAME) == index.text.empty_checksum
    except OSError as error:
        return [f"{EMPTY_TEXT_NAME}: can't be read: {error.strerror or error}"]
    return [] if intact else [f"{EMPTY_TEXT_NAME}: its checksum is not the one in the index"]


def check_shard(shard: ShardEntry, path: Path, rules: Rules) -> CheckedShard:
    """Check one shard against the index and its sidecar.

    Args:
        shard: Its index entry.
        path: Folder of the set.
        rules: Requirements on its samples.
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
        with open_regular(tar) as file:
            for sample in samples:
                faults += _check_sample(file, sample, rules)
        return CheckedShard(tuple(faults), tuple(sample.key for sample in samples))
    except OSError as error:
        return CheckedShard((*faults, f"can't be read: {error.strerror or error}"), ())
    except ValueError as error:
        return CheckedShard((*faults, str(error)), ())


def _check_sample(file: io.BufferedIOBase, sample: SampleEntry, rules: Rules) -> Iterator[str]:
    """Yield the faults of one sample: checksums, tar headers, which random access skips, and content."""
    labels: dict[str, bytes] = {}
    for extension in dict.fromkeys((*rules.required(sample), *sample.members)):
        name = f"{sample.key}.{extension}"
        try:
            check_member_in(file, name, sample, extension)
            yield from _check_header(file, sample, extension, rules.is_ours)
            if extension in ("json", "txt"):
                labels[extension] = read_member(file, name, sample, extension)
            else:
                _check_content(file, name, sample, extension, rules)
        except DamagedSample as error:
            yield str(error)
        except (UndecodableClipError, UnusableLatentsError, UnusableTextError) as error:
            yield f"{name}: {error}"
        except OSError:
            raise
        except Exception as error:  # a malformed file may raise anything; the other samples are still checked
            yield f"{name}: can't be checked: {type(error).__name__}: {error}"
    if not rules.is_ours:
        yield from (f"{sample.key}: {fault}" for fault in _check_foreign_labels(labels))
    elif "json" in labels:
        name = f"{sample.key}.json"
        yield from (f"{name}: {fault}" for fault in _check_metadata(labels["json"], sample, rules.num_labels))


def _check_content(file: io.BufferedIOBase, name: str, sample: SampleEntry, extension: str, rules: Rules) -> None:
    """Decode a member of a sample: a clip frame by frame, a picture, latents or a text embedding.

    Raises:
        ValueError: If its content is wrong.
    """
    if extension == pixels_of(sample.members) and rules.decode:
        if extension == VIDEO:
            member = sample.members[extension]
            check_clip(FilePart.open(file, member.offset, member.length), sample.shape)
        else:
            decode_picture(read_member(file, name, sample, extension), sample.shape)
    elif extension == LATENTS and rules.latents is not None:
        if sample.shape not in rules.latents.shapes:
            raise UnusableLatentsError("the index speaks of no latents for clips of its shape")
        data = read_member(file, name, sample, extension)
        read_latents(data, rules.latents.shapes[sample.shape], seed=0, position=0)
    elif extension == TEXT and rules.text is not None:
        read_text(read_member(file, name, sample, extension), rules.text.channels)


def _check_header(file: io.BufferedIOBase, sample: SampleEntry, extension: str, is_ours: bool) -> Iterator[str]:
    """Yield the faults of a tar header; behind a damaged one, a sequential reader silently loses all samples.

    Names are compared in our own tars only: other programs add ``./``, or store long names in extended headers.
    """
    member, name = sample.members[extension], f"{sample.key}.{extension}"
    if member.offset < tarfile.BLOCKSIZE:
        yield f"{name}: is said to begin at byte {member.offset}, where the tar's first header is"
        return
    file.seek(member.offset - tarfile.BLOCKSIZE)
    try:
        header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        yield f"{name}: its header in the tar is damaged ({error})"
        return
    if header.size != member.length or (is_ours and header.name != name):
        yield f"{name}: its header in the tar says {header.name}, {header.size} bytes"


def _check_foreign_labels(labels: Mapping[str, bytes]) -> Iterator[str]:
    """Yield a fault if training can't read captions from the metadata of a set from elsewhere."""
    try:
        captions_of(parse_metadata(labels.get("json", b"{}")), labels.get("txt", b""))
    except MALFORMED as error:
        yield f"its metadata is malformed ({error})"


def _is_caption(value: object) -> bool:
    try:
        captions_in(value)
    except ValueError:
        return False
    return True


def _check_metadata(data: bytes, sample: SampleEntry, num_labels: int) -> Iterator[str]:
    try:
        metadata: dict[str, Any] = mapping(parse_json(data))
        shape = tuple(metadata[name] for name in ("num_frames", "height", "width"))
        caption, label = metadata["caption"], metadata["label"]
    except MALFORMED as error:
        yield f"is not the metadata of a clip ({error!r})"
        return
    if shape != sample.shape:
        yield f"says ({', '.join(map(shown, shape))}) frames, rows and columns where the index records {sample.shape}"
    if not isinstance(caption, str | list):
        yield f"has the caption {shown(caption)}, which is no text"
    elif not _is_caption(caption):
        yield "has a list of captions that are not all texts"
    is_class = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < num_labels
    if label is not None and not is_class:
        yield f"has the label {shown(label)}, which is none of the {num_labels} classes"
