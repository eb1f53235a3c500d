"""What a tar of any WebDataset holds, written down as the sidecar that random access and integrity need."""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import av
from av.error import FFmpegError
from PIL import ExifTags, Image

from data_pipelines.decoding import Orientation, orientation
from vdm.data.decoding import PICTURE_ERRORS, shown_times
from vdm.data.reading import PICTURES, VIDEO, pixels_of
from vdm.data.shards import Member, SampleEntry, Shape, ShardEntry, checksum, file_checksum, shard_of
from vdm.data.sidecars import write_samples

KEPT = (VIDEO, *PICTURES, "json", "txt")
"""Members that training reads; a sample's others are left where they are."""


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


def index_tar(path: Path) -> IndexedTar:
    """Read a tar from end to end and write its sidecar."""
    faults: list[str] = []
    samples: list[SampleEntry] = []
    num_uneven = 0
    try:
        with path.open("rb") as file:
            for key, members in _samples(path, faults).items():
                try:
                    sample, is_even = _describe(file, key, members)
                    samples.append(sample)
                    num_uneven += not is_even
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
    return IndexedTar(shard_of(path.name, num_bytes, digest, samples, keys), rates, tuple(faults), num_uneven)


def _samples(path: Path, faults: list[str]) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Return the members of each sample by extension, in the order of keys; they need not be neighbours.

    As in webdataset, a sample's key is a member's path up to the first dot of its name.
    """
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    for info in _members(path, faults):
        folder, name = PurePosixPath(info.name).parent, PurePosixPath(info.name).name
        stem, _, extension = name.partition(".")
        key, extension = str(folder / stem), extension.lower()
        if extension not in KEPT:
            continue
        if extension in samples.setdefault(key, {}):
            faults.append(f"{path.name}: {info.name}: is there twice; the first is used")
            continue
        samples[key][extension] = info
    return samples


def _members(path: Path, faults: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the files in a tar; where it ends before its time, which tarfile passes over, that is a fault."""
    num_bytes = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isfile():
                    if info.offset_data + info.size > num_bytes:
                        faults.append(f"{path.name}: is cut short in {info.name} at byte {num_bytes}")
                        return
                    yield info
            if not _only_zeros(path, tar.offset):
                faults.append(f"{path.name}: a header at byte {tar.offset} is damaged; what follows is left out")
    except tarfile.TarError as error:
        faults.append(f"{path.name}: is not a plain tar ({error}); compressed ones must be unpacked first")


def _only_zeros(path: Path, offset: int) -> bool:
    with path.open("rb") as file:
        file.seek(offset)
        return not any(any(block) for block in iter(lambda: file.read(1 << 20), b""))


class _Look(NamedTuple):
    shape: Shape
    fps: float | None = None
    is_even: bool = True
    """Whether frames follow each other at equal times, or nearly so."""


def _describe(file: BinaryIO, key: str, infos: Mapping[str, tarfile.TarInfo]) -> tuple[SampleEntry, bool]:
    """Read a sample's members and return what the sidecar says of it, and whether its frame rate is constant."""
    members: dict[str, Member] = {}
    look: _Look | None = None
    for extension, info in infos.items():
        file.seek(info.offset_data)
        data = file.read(info.size)
        members[extension] = Member(info.offset_data, info.size, checksum(data))
        if extension == VIDEO:
            look = _look_at_video(data)
        elif extension in PICTURES and look is None:
            look = _look_at_picture(data)
    if look is None:
        raise UnusableError(f"has neither .{VIDEO} nor .{', .'.join(PICTURES)}")
    return SampleEntry(key, look.shape, members, look.fps), look.is_even


def _look_at_video(data: bytes) -> _Look:
    """Look at a video without decoding more than a frame."""
    try:
        with av.open(io.BytesIO(data), "r", format="mp4", metadata_errors="ignore") as container:
            if not container.streams.video:
                raise UnusableError("holds no video")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0) or None
            times = shown_times(list(container.demux(stream)))
            container.seek(0)
            frame = next(container.decode(stream), None)
    except FFmpegError as error:
        raise UnusableError(f"its video can't be read: {error.strerror}") from None
    if frame is None or not times:
        raise UnusableError("no frame of its video decodes")
    if orientation(frame) != Orientation():
        raise UnusableError("its video is stored turned or mirrored, for players to undo; encode it upright")
    return _Look((len(times), frame.height, frame.width), rate, _are_even(times))


def _are_even(times: Sequence[int]) -> bool:
    """Tell whether no time is more than a mean interval off its place in a row of equal intervals."""
    mean = (times[-1] - times[0]) / max(1, len(times) - 1)
    return all(abs(time - times[0] - number * mean) <= mean for number, time in enumerate(times))


def _look_at_picture(data: bytes) -> _Look:
    try:
        with Image.open(io.BytesIO(data)) as image:
            shape, turn = (1, image.height, image.width), image.getexif().get(ExifTags.Base.Orientation, 1)
    except PICTURE_ERRORS as error:
        raise UnusableError(f"its picture can't be read: {error}") from None
    if turn in range(2, 9):
        raise UnusableError("its picture is stored turned or mirrored, for viewers to undo; encode it upright")
    return _Look(shape)
