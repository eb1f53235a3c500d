"""What a tar of any WebDataset holds, written down as the sidecar that random access and integrity need."""

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from av.error import FFmpegError
from jaxtyping import Int
from PIL import ExifTags

from data_pipelines.tar_members import TarMember, read_members
from vdm.data.captions import captions_of, parse_metadata
from vdm.data.containers import bound_pixels, check_pixels, open_picture, open_video
from vdm.data.decoding import PICTURE_ERRORS, unique_times
from vdm.data.frames import Orientation, film_of, orientation, pixel_aspect, square_size
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
    too_long,
)
from vdm.data.sidecars import write_samples
from vdm.files import MALFORMED
from vdm.regular_files import FilePart, open_regular
from vdm.text import decode_text

TEXTS = ("json", "txt")
KEPT = (VIDEO, *PICTURES, *TEXTS)
"""Members that training reads; a sample's others are left where they are."""
_SHOWN = 5
"""Extensions that a message names, at most."""


class UnusableError(ValueError):
    """A tar or a sample that can't be trained on, and why."""


@dataclass(frozen=True)
class IndexedTar:
    """What came of one tar."""

    shard: ShardEntry | None
    """None if no sample of it can be used."""
    rates: frozenset[float | None]
    """Frames per second that its videos have, None for one that does not say."""
    faults: tuple[str, ...]
    """What was left out and why, in one line each."""
    num_uneven: int = 0
    """Videos of variable frame rate."""
    num_uncaptioned: int = 0
    """Samples without a caption."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """By extension, how many members beside clips training does not read."""
    encodings: Mapping[str, int] = field(default_factory=dict)
    """By encoding, how many texts are not in UTF-8."""


def index_tar(path: Path) -> IndexedTar:
    """Read a tar from end to end and write its sidecar."""
    faults: list[str] = []
    samples: list[SampleEntry] = []
    num_uneven = num_uncaptioned = 0
    unread: Counter[str] = Counter()
    encodings: Counter[str] = Counter()
    if not is_plain_name(path.name):
        return IndexedTar(None, frozenset(), (f"{path.name}: is no name for a shard; give it a plain one",))
    try:
        with open_regular(path) as file:
            for key, members in _samples(file, path.name, faults, unread).items():
                try:
                    found = _usable(members)
                    sample, is_even = _describe(file, key, found)
                    num_uncaptioned += not _captions(file, found, encodings)
                    samples.append(sample)
                    num_uneven += not is_even
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
        unread,
        encodings,
    )


def _samples(
    file: io.BufferedIOBase, tar: str, faults: list[str], unread: Counter[str]
) -> dict[str, dict[str, TarMember]]:
    """Return the members of each sample by extension, in the order of keys; they need not be neighbours.

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
    """Return those members of a sample that training reads.

    Raises:
        UnusableError: If there is no clip among them, or one is too long.
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
    """Return the captions of a sample; ``encodings`` counts its texts in others than UTF-8.

    Raises:
        UnusableError: If training could make none of what is there.
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


class _Look(NamedTuple):
    shape: Shape
    fps: float | None = None
    is_even: bool = True
    """Whether frames follow each other at equal times, or nearly so."""


def _describe(file: io.BufferedIOBase, key: str, found: Mapping[str, TarMember]) -> tuple[SampleEntry, bool]:
    """Read a sample's members and return what the sidecar says of it, and whether its frame rate is constant."""
    kind = pixels_of(found)
    members: dict[str, Member] = {}
    for extension, member in found.items():
        digest = stream_checksum(FilePart.open(file, member.offset, member.length))
        members[extension] = Member(member.offset, member.length, digest)
    look_at = _look_at_video if kind == VIDEO else _look_at_picture
    try:
        look = look_at(FilePart.open(file, found[kind].offset, found[kind].length))
    except (UnusableError, OSError):
        raise
    except ValueError as error:  # it claims too much
        raise UnusableError(f"its {'video' if kind == VIDEO else 'picture'} can't be used: {error}") from None
    except Exception as error:  # whatever a strange file makes a decoder do, the others go on
        raise UnusableError(f"can't be read: {type(error).__name__}: {error}") from None
    return SampleEntry(key, look.shape, members, look.fps), look.is_even


def _look_at_video(file: io.BufferedIOBase) -> _Look:
    """Look at a video without decoding more than a frame, or holding more than that."""
    try:
        with open_video(file, "mp4") as container:
            stream = film_of(container)
            if stream is None:
                raise UnusableError("holds no video")
            bound_pixels(stream)
            rate = float(stream.average_rate or 0) or None
            times = unique_times(container, stream)
            container.seek(0)
            frame = next(container.decode(stream), None)
            aspect = pixel_aspect(stream)
    except FFmpegError as error:
        raise UnusableError(f"its video can't be read: {error.strerror}") from None
    if frame is None or not len(times):
        raise UnusableError("no frame of its video decodes")
    if orientation(frame) != Orientation():
        raise UnusableError("its video is stored turned or mirrored, for players to undo; encode it upright")
    if frame.interlaced_frame:
        raise UnusableError("its video is interlaced, for players to undo; deinterlace it")
    height, width = square_size(frame, aspect)
    check_pixels(height, width)
    return _Look((len(times), height, width), rate, _are_even(times))


def _are_even(times: Int[np.ndarray, " t"]) -> bool:
    """Tell whether no time is more than a mean interval off its place in a row of equal intervals."""
    since = (times - times[0]).astype(float)
    mean = since[-1] / max(1, len(times) - 1)
    return bool((np.abs(since - np.arange(len(times)) * mean) <= mean).all())


def _look_at_picture(file: io.BufferedIOBase) -> _Look:
    try:
        with open_picture(file) as image:
            shape, turn = (1, image.height, image.width), image.getexif().get(ExifTags.Base.Orientation, 1)
    except PICTURE_ERRORS as error:
        raise UnusableError(f"its picture can't be read: {error}") from None
    if turn in range(2, 9):
        raise UnusableError("its picture is stored turned or mirrored, for viewers to undo; encode it upright")
    return _Look(shape)
