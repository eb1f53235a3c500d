"""Interface of a source of clips."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from jaxtyping import UInt8

from data_pipelines.annotations import Annotation
from data_pipelines.settings import ClipSettings


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
