"""Interface of a source of clips, and the search for videos in a folder."""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from data_pipelines.annotations import Annotation
from data_pipelines.settings import ClipSettings
from data_pipelines.suffixes import OTHER_SUFFIXES, VIDEO_SUFFIXES
from vdm.data.containers import open_video
from vdm.data.frames import film_of
from vdm.regular_files import open_regular

_BEGINNING = 1 << 12
"""Bytes at the start of a picture that say whether it is animated."""
_WEBP_ANIMATION_FLAG = 2
"""In the first byte of a WebP's chunk ``VP8X``."""


class SourceError(ValueError):
    """Why a source has no clips, or fewer than it should."""


class LeftOutError(SourceError):
    """The source is intact, but of a kind that the settings leave out."""


class UnavailableError(SourceError):
    """The storage or the machine is at fault, not the source: the next run should try again."""


@dataclass(frozen=True)
class Clip:
    """One training clip, not yet compressed."""

    key: str
    """Its name in the shards; see ``clip_key``."""
    video: UInt8[np.ndarray, "t h w c"]
    metadata: Mapping[str, Any]
    """Entries of its ``KEY.json``, except those that are the same for all clips."""


class Source(Protocol):
    """A source of clips, such as a video file. All its clips go to the same split. Instances must be picklable."""

    @property
    def name(self) -> str:
        """Unique within the input, and the same in every run."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the content changes."""
        ...

    @property
    def settings(self) -> ClipSettings:
        """Shape, rate and stride of its clips."""
        ...

    def clips(self) -> Iterator[Clip]:
        """Yield the clips in order.

        Raises:
            SourceError: Where no more can be read; or after the last clip, if there were errors before.
        """
        ...


AnySource = TypeVar("AnySource", bound=Source, covariant=True)


@dataclass(frozen=True)
class Inputs(Generic[AnySource]):
    """The sources of a build, and what is known about them before they are read."""

    sources: tuple[AnySource, ...]
    labels: tuple[str, ...]
    """Names of the classes, in the order of their numbers."""
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    """By key of a clip, else by name of its source; they override captions and labels in the metadata of clips."""
    recordings: Mapping[str, str] = field(default_factory=dict)
    """Recording by name of the source. All sources of one recording go to the same split."""
    ignored: tuple[str, ...] = ()
    """Files that are neither videos nor used as captions."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Faults that are known before any source is read: the reason by file."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how captions were read, in one line each."""


def source_key(name: str) -> str:
    """Return a name for files and sample keys: readable, unique, and without dots or slashes, as WebDataset demands."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in Path(name).stem)
    return f"{stem[:40]}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def clip_key(source_name: str, number: int) -> str:
    """Return the key in the shards of clip ``number`` of a source."""
    return f"{source_key(source_name)}-{number:05d}"


def list_videos(folder: Path, excluded: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """Find the videos in ``folder``, except hidden files.

    Args:
        folder: Searched with all its sub-folders, also through symbolic links.
        excluded: Sub-folders to leave out, such as that of the shards.

    Returns:
        Paths of the videos, and of all other files, each in order.
    """
    videos, others, visited = [], [], {path.resolve() for path in excluded}
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = Path(root).resolve()
        if real in visited:  # excluded, or a link to a folder that was searched before
            folders.clear()
            continue
        visited.add(real)
        for path in (Path(root) / name for name in files if not name.startswith(".")):
            (videos if _is_video(path) else others).append(path)
    return sorted(videos), sorted(others)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".png":
        return b"acTL" in _beginning(path).partition(b"IDAT")[0]  # it is animated
    return suffix in VIDEO_SUFFIXES or (suffix not in OTHER_SUFFIXES and _holds_video(path))


def unread_animation(path: Path) -> str | None:
    """Return the format of an animated picture that can't be read as a video: ``WebP`` or ``AVIF``; else None.

    FFmpeg does not decode animated WebP, and takes the cover of an animated AVIF for its default stream.
    """
    if path.suffix.lower() not in (".webp", ".avif", ".avifs"):
        return None
    start = _beginning(path)
    if start[8:16] == b"WEBPVP8X":
        return "WebP" if len(start) > 20 and start[20] & _WEBP_ANIMATION_FLAG else None
    brands = start[8 : int.from_bytes(start[:4])] if start[4:8] == b"ftyp" else b""
    return "AVIF" if b"avis" in [brands[place : place + 4] for place in range(0, len(brands), 4)] else None


def _beginning(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_BEGINNING)
    except OSError:
        return b""


def _holds_video(path: Path) -> bool:
    """Return whether FFmpeg finds a video in a file with an unknown suffix."""
    try:
        with open_video(path) as container:
            is_picture = container.format.name in ("tty", "image2") or container.format.name.endswith("_pipe")
            return not is_picture and film_of(container) is not None
    except (FFmpegError, OSError, ValueError):
        return False
