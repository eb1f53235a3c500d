"""Check of the frame counts in an mp4's header: FFmpeg allocates memory by them before it reads a frame.

ISO/IEC 14496-12. A file is a sequence of boxes, some of which contain boxes. For a track, ``stsz`` gives the number and
sizes of its samples (frames), ``elst`` the parts of it that are shown, and ``trun`` the samples of a fragment.
"""

import io
import os
import struct
from dataclasses import dataclass, field

MAX_SAMPLES = 1 << 22
"""Limit for one track: 38 hours at 30 frames a second. FFmpeg takes some 70 bytes for each sample."""
_MAX_BOXES = 100_000
_MAX_DEPTH = 16
_HOLD_BOXES = frozenset(
    (
        b"clip",
        b"dinf",
        b"edts",
        b"mdia",
        b"minf",
        b"moof",
        b"moov",
        b"mvex",
        b"stbl",
        b"traf",
        b"trak",
        b"udta",
        b"wave",
    )
)


class ImplausibleHeaderError(ValueError):
    """An mp4 header with more frames than the file can hold, or more than ``MAX_SAMPLES``."""


@dataclass
class _Track:
    num_samples: int = 0
    num_edits: int = 1
    is_counted_by_chunks: bool = False
    """Whether it is uncompressed sound, for which FFmpeg's table lists chunks instead of samples."""


@dataclass
class _Walk:
    """State of the walk through the boxes of a file."""

    file: io.BufferedIOBase
    num_bytes: int
    num_boxes: int = 0
    track: _Track = field(default_factory=_Track)
    num_in_fragments: int = 0


def check_tables(file: io.BufferedIOBase) -> None:
    """Check the sizes of an mp4's tables; other files pass.

    Args:
        file: Open for reading; it is at its start afterwards.

    Raises:
        ImplausibleHeaderError: If there are more samples in them than ``MAX_SAMPLES``, or than the file has bytes.
    """
    num_bytes = file.seek(0, os.SEEK_END)
    try:
        _walk(_Walk(file, num_bytes), 0, num_bytes, 0)
    finally:
        file.seek(0)


def _walk(walk: _Walk, start: int, end: int, depth: int) -> None:
    while start + 8 <= end:
        walk.file.seek(start)
        size, kind = struct.unpack(">I4s", walk.file.read(8).ljust(8, b"\0"))
        header = 8
        if size == 1:
            size, header = int.from_bytes(walk.file.read(8), "big"), 16
        elif size == 0:
            size = end - start
        walk.num_boxes += 1
        if size < header or walk.num_boxes > _MAX_BOXES:
            return
        _look(walk, kind, start + header, min(start + size, end), depth)
        start += size


def _look(walk: _Walk, kind: bytes, start: int, end: int, depth: int) -> None:
    if kind == b"cmov":
        raise ImplausibleHeaderError("has a compressed header, whose size can't be told")
    if kind == b"trak":
        walk.track = _Track()
    if kind in _HOLD_BOXES and depth < _MAX_DEPTH:
        _walk(walk, start, end, depth + 1)
        return
    if kind not in (b"hdlr", b"stts", b"stsz", b"stz2", b"elst", b"trun"):
        return
    walk.file.seek(start)
    _, first, second, third = struct.unpack(">4I", walk.file.read(min(16, end - start)).ljust(16, b"\0"))
    track = walk.track
    if kind == b"hdlr":
        track.is_counted_by_chunks = second == int.from_bytes(b"soun", "big")
    elif kind == b"stts":
        track.is_counted_by_chunks &= first == 1 and third == 1
    elif kind == b"elst":
        track.num_edits = max(1, first)
    elif kind == b"trun":
        walk.num_in_fragments += first
    else:
        track.num_samples = second
        if first and kind == b"stsz" and not track.is_counted_by_chunks and first * second > walk.num_bytes:
            raise ImplausibleHeaderError(f"claims {second} frames of {first} bytes and has {walk.num_bytes} bytes")
    claimed = max(track.num_samples * track.num_edits, walk.num_in_fragments)
    if claimed > MAX_SAMPLES and not track.is_counted_by_chunks:
        raise ImplausibleHeaderError(f"claims {claimed} frames, more than {MAX_SAMPLES}")
