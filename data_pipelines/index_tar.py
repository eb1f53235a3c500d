"""Indexing one tar of a WebDataset: a sidecar with the place, checksum and shape of each sample."""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_pipelines.clip_properties import ClipProperties, UnusableError, inspect_picture, inspect_video
from data_pipelines.settings import HDR
from data_pipelines.tar_members import TarMember, read_members
from vdm.data.captions import captions_of, parse_metadata
from vdm.data.member_checks import too_long
from vdm.data.reading import PICTURES, VIDEO, pixels_of
from vdm.data.shard_table import is_plain_name
from vdm.data.shards import (
    Member,
    SampleEntry,
    Shape,
    ShardEntry,
    file_checksum,
    max_bytes_of,
    shard_of,
    stream_checksum,
)
from vdm.data.sidecars import write_samples
from vdm.files import MALFORMED
from vdm.regular_files import FilePart, open_regular
from vdm.text import decode_text

TEXTS = ("json", "txt")
KEPT = (VIDEO, *PICTURES, *TEXTS)
"""Extensions of the members that training reads; other members are ignored."""
_NUMBERED = re.compile(r"(.*\D)(\d{1,18})", re.ASCII | re.DOTALL)
_MIN_SEQUENCE = 3
_SHOWN = 5
"""Maximum number of extensions in a message."""


@dataclass(frozen=True)
class IndexedTar:
    """Result of indexing one tar."""

    shard: ShardEntry | None
    """Its index entry; None if none of its samples can be used."""
    rates: frozenset[float | None]
    """Frame rates of its videos; None stands for an unknown rate."""
    faults: tuple[str, ...]
    """Samples and members that were left out, with the reason, in one line each."""
    num_uneven: int = 0
    """Number of videos with a variable frame rate."""
    num_uncaptioned: int = 0
    """Number of samples without a caption."""
    num_mapped: int = 0
    """Number of videos of high dynamic range, which training maps to standard range."""
    num_left_out: int = 0
    """Number of videos of high dynamic range that were left out, as ``hdr`` demands."""
    sequences: tuple[str, ...] = ()
    """Common beginnings of the keys of numbered pictures without captions, which may be frames of a video."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Number of members that training does not read, by extension."""
    encodings: Mapping[str, int] = field(default_factory=dict)
    """Number of texts that are not in UTF-8, by encoding."""


def index_tar(path: Path, hdr: HDR = "map") -> IndexedTar:
    """Read a tar from end to end and write its sidecar.

    Args:
        path: The tar.
        hdr: Whether videos of high dynamic range are kept or left out.
    """
    faults: list[str] = []
    samples: list[SampleEntry] = []
    num_uneven = num_uncaptioned = num_mapped = num_left_out = 0
    unread: Counter[str] = Counter()
    encodings: Counter[str] = Counter()
    if not is_plain_name(path.name):
        return IndexedTar(None, frozenset(), (f"{path.name}: is no name for a shard; give it a plain one",))
    try:
        with open_regular(path) as file:
            for key, members in _samples(file, path.name, faults, unread).items():
                try:
                    found = _usable(members)
                    sample, clip = _describe(file, key, found)
                    captions = _captions(file, found, encodings)
                    if clip.is_hdr and hdr == "leave_out":
                        num_left_out += 1
                        continue
                    num_uncaptioned += not captions
                    samples.append(sample)
                    num_uneven += not clip.is_even
                    num_mapped += clip.is_hdr
                    unread.update(f".{extension}" for extension in members if extension not in KEPT)
                except UnusableError as error:
                    faults.append(f"{path.name}: {key}: {error}")
        num_bytes, digest = path.stat().st_size, file_checksum(path)
    except OSError as error:
        return IndexedTar(None, frozenset(), (f"{path.name}: can't be read: {error.strerror or error}",))
    if not samples:
        return IndexedTar(None, frozenset(), (*faults, f"{path.name}: no sample of it can be used"))
    write_samples(path.parent, path.name, samples)
    rates = frozenset(sample.fps for sample in samples if sample.shape[0] > 1)
    keys = [f"{sample.key} {sample.members[pixels_of(sample.members)].checksum}" for sample in samples]
    return IndexedTar(
        shard_of(path.name, num_bytes, digest, samples, keys),
        rates,
        tuple(faults),
        num_uneven,
        num_uncaptioned,
        num_mapped,
        num_left_out,
        _sequences(samples),
        unread,
        encodings,
    )


def _sequences(samples: Sequence[SampleEntry]) -> tuple[str, ...]:
    """Find sequences of pictures with consecutive numbers, one size and no texts; return how their keys begin."""
    runs: dict[tuple[str, Shape], list[int]] = {}
    for sample in samples:
        numbered = _NUMBERED.fullmatch(sample.key)
        if numbered and pixels_of(sample.members) != VIDEO and not sample.members.keys() & set(TEXTS):
            runs.setdefault((numbered[1], sample.shape), []).append(int(numbered[2]))
    return tuple(
        start
        for (start, _), numbers in runs.items()
        if len(numbers) >= _MIN_SEQUENCE and max(numbers) - min(numbers) == len(numbers) - 1
    )


def _samples(
    file: io.BufferedIOBase, tar: str, faults: list[str], unread: Counter[str]
) -> dict[str, dict[str, TarMember]]:
    """Return the members of each sample by extension, in the order of the keys; they may lie apart in the tar.

    As in webdataset, a sample's key is a member's path up to the first dot of its name, and hidden files and those
    without a dot belong to no sample; ``unread`` counts them.
    """
    samples: dict[str, dict[str, TarMember]] = {}
    for member in read_members(file, tar, faults):
        folder, name = PurePosixPath(member.name).parent, PurePosixPath(member.name).name
        stem, _, extension = name.partition(".")
        if not stem or not extension:
            unread["without an extension" if stem else "hidden"] += 1
            continue
        of_key, extension = samples.setdefault(str(folder / stem), {}), extension.lower()
        if extension in of_key:
            faults.append(f"{tar}: {member.name}: is there twice; the first is used")
            continue
        of_key[extension] = member
    return samples


def _usable(members: Mapping[str, TarMember]) -> dict[str, TarMember]:
    """Return the members of a sample that training reads.

    Raises:
        UnusableError: If it has no video or picture, or a member is too long.
    """
    found = {extension: member for extension, member in members.items() if extension in KEPT}
    if pixels_of(found) not in found:
        lack, has = f"has neither .{VIDEO} nor .{', .'.join(PICTURES)}", ", .".join(sorted(members)[:_SHOWN])
        if any(extension.rpartition(".")[2] in (VIDEO, *PICTURES) for extension in members):
            raise UnusableError(f"{lack} but .{has}, as names are split at their first dot; rename its members")
        raise UnusableError(f"{lack} but .{has}")
    for extension, member in found.items():
        if member.length > max_bytes_of(extension):
            raise UnusableError(f"its .{extension} {too_long(member.length, extension)}")
    return found


def _captions(file: io.BufferedIOBase, found: Mapping[str, TarMember], encodings: Counter[str]) -> tuple[str, ...]:
    """Return the captions of a sample; count its texts that are not in UTF-8 in ``encodings``.

    Raises:
        UnusableError: If its texts or metadata are malformed.
    """
    data = {name: FilePart.open(file, found[name].offset, found[name].length).read() for name in TEXTS if name in found}
    for name, text in data.items():
        try:
            encoding = decode_text(text)[1]
        except ValueError as error:
            raise UnusableError(f"its .{name} {error}") from None
        if encoding != "UTF-8":
            encodings[encoding] += 1
    try:
        return captions_of(parse_metadata(data.get("json", b"{}")), data.get("txt", b""))
    except MALFORMED as error:
        raise UnusableError(f"its metadata is malformed ({error})") from None


def _describe(file: io.BufferedIOBase, key: str, found: Mapping[str, TarMember]) -> tuple[SampleEntry, ClipProperties]:
    """Read the members of a sample; return its sidecar entry and the properties of its clip."""
    kind = pixels_of(found)
    members: dict[str, Member] = {}
    for extension, member in found.items():
        digest = stream_checksum(FilePart.open(file, member.offset, member.length))
        members[extension] = Member(member.offset, member.length, digest)
    inspect = inspect_video if kind == VIDEO else inspect_picture
    try:
        clip = inspect(FilePart.open(file, found[kind].offset, found[kind].length))
    except (UnusableError, OSError):
        raise
    except ValueError as error:  # it declares too large a size
        raise UnusableError(f"its {'video' if kind == VIDEO else 'picture'} can't be used: {error}") from None
    except Exception as error:  # a malformed file may raise anything; the other samples go on
        raise UnusableError(f"can't be read: {type(error).__name__}: {error}") from None
    return SampleEntry(key, clip.shape, members, clip.fps), clip
