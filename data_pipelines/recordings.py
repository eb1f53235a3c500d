"""Videos of one recording, which must not be split between training and validation.

Videos belong to one recording if they are named by one HLS playlist, also in several qualities; if they are numbered
and each begins when the previous one ends, as segments do; if they have the same bytes; or if the manifest says so.
"""

import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from av.error import FFmpegError

from data_pipelines.clips import VideoFile
from vdm.data.containers import open_video
from vdm.data.shards import file_checksum
from vdm.regular_files import open_regular, read_limited
from vdm.text import decode_text

_PLAYLISTS = (".m3u8", ".m3u")
MAX_PLAYLIST_BYTES = 1 << 24
_ENTRY = re.compile(r"^[^#\s].*|^#EXT-X-.*\bURI=\"([^\"]+)\"", re.MULTILINE)
"""A file that a playlist names, in a line of its own or as an attribute of a tag (RFC 8216, section 4)."""
_NUMBERED = re.compile(r"(.*?)(\d{1,18})", re.ASCII | re.DOTALL)
_STREAMS = frozenset([".m2t", ".m2ts", ".mpeg", ".mpg", ".mts", ".ts", ".vob"])
"""Suffixes of files that cameras and recorders split at a fixed size."""
_MAX_GAP_SECONDS = 0.5
_HEAD_BYTES = 1 << 16


@dataclass
class _Groups:
    """Disjoint sets that can be united (union-find)."""

    _parents: dict[Hashable, Hashable] = field(default_factory=dict)

    def of(self, thing: Hashable) -> Hashable:
        """Return the representative of the set that contains ``thing``."""
        while (parent := self._parents.get(thing, thing)) != thing:
            self._parents[thing] = self._parents.get(parent, parent)
            thing = parent
        return thing

    def unite(self, things: Iterable[Hashable]) -> None:
        """Unite the sets that contain these things."""
        first, *others = map(self.of, things)
        for other in others:
            self._parents[self.of(other)] = self.of(first)


def find_recordings(
    videos: Sequence[VideoFile], others: Sequence[Path], annotated: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Find the recordings that consist of several videos.

    Args:
        videos: In order.
        others: The other files of their folder, playlists among them.
        annotated: Recordings that the user names, by name of the video.

    Returns:
        By name of the video, the name of the first video of its recording; videos that are alone are left out.
    """
    groups = _Groups()
    places = {os.path.normpath(video.path): video.name for video in videos}
    for playlist in others:
        if playlist.suffix.lower() in _PLAYLISTS:
            named = [os.path.normpath(playlist), *_entries(playlist)]
            groups.unite([places.get(path, Path(path)) for path in named])
    for same in (*_same_files(videos), *_followers(videos)):
        groups.unite([video.name for video in same])
    for name, recording in (annotated or {}).items():
        groups.unite([name, ("annotated", recording)])
    members: dict[Hashable, list[str]] = {}
    for video in videos:
        members.setdefault(groups.of(video.name), []).append(video.name)
    return {name: names[0] for names in members.values() if len(names) > 1 for name in names}


def recording_note(recordings: Mapping[str, str]) -> list[str]:
    """Return a note on recordings of several videos; none if there are no such recordings."""
    members: dict[str, list[str]] = {}
    for name, recording in recordings.items():
        members.setdefault(recording, []).append(name)
    if not members:
        return []
    first = next(iter(members.values()))
    more = f" and {len(first) - 2} more" if len(first) > 2 else ""
    what = (
        "recording of several files, which go"
        if len(members) == 1
        else "recordings of several files, each of which goes"
    )
    return [f"{len(members)} {what} to one side of the split, such as {first[0]} and {first[1]}{more}"]


def _entries(playlist: Path) -> list[str]:
    """Return the paths that an HLS playlist names; none for other playlists, which are no recording."""
    try:
        text = decode_text(read_limited(playlist, MAX_PLAYLIST_BYTES))[0]
    except (OSError, ValueError):
        return []
    if not text.startswith("#EXTM3U") or "#EXT-X-" not in text:
        return []
    named = [match[1] or match[0] for match in _ENTRY.finditer(text)]
    local = [unquote(name.strip().partition("?")[0]) for name in named if "://" not in name]
    return [os.path.normpath(playlist.parent / name) for name in local]


def _same_files(videos: Sequence[VideoFile]) -> list[list[VideoFile]]:
    """Group the files with the same bytes; only those of equal size and beginning are read as a whole."""
    found: list[list[VideoFile]] = []
    for of_size in _shared(videos, lambda path: path.stat().st_size or path):  # empty files are not alike
        for alike in _shared(of_size, _head):
            found += _shared(alike, file_checksum)
    return found


def _shared(videos: Iterable[VideoFile], key: Callable[[Path], Hashable]) -> list[list[VideoFile]]:
    groups: dict[Hashable, list[VideoFile]] = {}
    for video in videos:
        try:
            groups.setdefault(key(video.path), []).append(video)
        except OSError:  # a later stage reports that it can't be read
            continue
    return [group for group in groups.values() if len(group) > 1]


def _head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(_HEAD_BYTES)


def _followers(videos: Sequence[VideoFile]) -> list[tuple[VideoFile, VideoFile]]:
    """Return pairs of files with consecutive numbers, the second of which begins when the first ends.

    A sequence of names is searched up to the first pair that does not follow; with suffixes in ``_STREAMS`` to its end.
    """
    rows: dict[tuple[Path, str, str], list[tuple[int, VideoFile]]] = {}
    for video in videos:
        if numbered := _NUMBERED.fullmatch(video.path.stem):
            row = video.path.parent, numbered[1], video.path.suffix.lower()
            rows.setdefault(row, []).append((int(numbered[2]), video))
    pairs: list[tuple[VideoFile, VideoFile]] = []
    for (_, _, suffix), row in rows.items():
        row.sort(key=lambda item: item[0])
        before: tuple[float, float] | None = None
        for (number, first), (next_number, second) in pairwise(row):
            before = before or _span(first.path)
            after = _span(second.path) if before is not None and next_number == number + 1 else None
            if before and after and _follows(before, after):
                pairs.append((first, second))
            elif suffix not in _STREAMS:
                break
            before = after
    return pairs


def _follows(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return second[0] > first[0] + _MAX_GAP_SECONDS / 10 and abs(second[0] - first[1]) <= _MAX_GAP_SECONDS


def _span(path: Path) -> tuple[float, float] | None:
    """Return when a video begins and ends by its own clock, in seconds; None if unknown."""
    try:
        with open_video(path) as container:
            start, duration = container.start_time, container.duration
            is_matroska = "matroska" in container.format.name  # FFmpeg writes its duration as counted from zero
    except (FFmpegError, OSError, ValueError):
        return None
    return (
        None
        if start is None or not duration
        else (
            start / 1e6,
            (duration if is_matroska else start + duration) / 1e6,
        )
    )
