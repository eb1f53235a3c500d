"""What clips are made from, and the two kinds of input: a folder of videos and (elsewhere) moving digits."""

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
from vdm.text import printable as printable

_BEGINNING = 1 << 12
"""Bytes at the start of a picture that say whether it is animated."""
_WEBP_ANIMATION_FLAG = 2
"""In the first byte of a WebP's chunk ``VP8X``."""


class SourceError(ValueError):
    """Why a source gave no clips, or fewer than it should."""


class LeftOutError(SourceError):
    """The source is as it should be, and of a kind that the settings leave out."""


class UnavailableError(SourceError):
    """The storage, not the content, is at fault: worth another try next time."""


@dataclass(frozen=True)
class Clip:
    """One training clip, not yet compressed."""

    key: str
    """Its name in the shards; see ``clip_key``."""
    video: UInt8[np.ndarray, "t h w c"]
    metadata: Mapping[str, Any]
    """What its ``KEY.json`` says, apart from what is the same for all."""


class Source(Protocol):
    """What gives clips; all clips of a source go to the same split. Instances travel to other processes."""

    @property
    def name(self) -> str:
        """Unique in its input, the same each time."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the content does."""
        ...

    @property
    def settings(self) -> ClipSettings:
        """What its clips look like."""
        ...

    def clips(self) -> Iterator[Clip]:
        """Yield the clips in order.

        Raises:
            SourceError: At the place where no more can be read, or in the end, if something was wrong on the way.
        """
        ...


AnySource = TypeVar("AnySource", bound=Source, covariant=True)


@dataclass(frozen=True)
class Inputs(Generic[AnySource]):
    """All that one build starts from."""

    sources: tuple[AnySource, ...]
    labels: tuple[str, ...]
    """Names of the classes, in the order of their numbers."""
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    """By name of the source, or by key of a clip, which goes first; overrides what clips say of themselves."""
    recordings: Mapping[str, str] = field(default_factory=dict)
    """By name of the source: what it is a part of. All sources of one recording go to the same split; others to any."""
    ignored: tuple[str, ...] = ()
    """Files passed over because they are neither videos nor captions of any."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """What is wrong before any source is read: by file, the reason."""
    notes: tuple[str, ...] = ()
    """What the user should know of how captions were read, a line each."""


def source_key(name: str) -> str:
    """Return a name for files and sample keys: readable, unique, free of the dots and slashes WebDataset splits at."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in Path(name).stem)
    return f"{stem[:40]}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def clip_key(source_name: str, number: int) -> str:
    """Return the name in the shards of a source's clip ``number``."""
    return f"{source_key(source_name)}-{number:05d}"


def list_videos(folder: Path, excluded: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """Find the videos below ``folder``, hidden files apart.

    Args:
        folder: Searched with all its sub-folders, through symbolic links too.
        excluded: Sub-folders to leave out: where the shards are written.

    Returns:
        Paths of videos, and of files that are something else, each in order.
    """
    videos, others, visited = [], [], {path.resolve() for path in excluded}
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = Path(root).resolve()
        if real in visited:  # the shards, or a link that leads back
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
    """Whether FFmpeg finds a film in a file whose name says nothing."""
    try:
        with open_video(path) as container:
            is_picture = container.format.name in ("tty", "image2") or container.format.name.endswith("_pipe")
            return not is_picture and film_of(container) is not None
    except (FFmpegError, OSError, ValueError):
        return False
