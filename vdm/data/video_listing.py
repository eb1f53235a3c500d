"""The search for videos in a folder, which ``vdm-data build`` and ``vdm evaluate`` share."""

import os
from collections.abc import Collection
from pathlib import Path

from av.error import FFmpegError

from vdm.data.containers import open_video
from vdm.data.frames import film_of
from vdm.regular_files import open_regular

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg",
    ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
])
# fmt: on
"""A file with such a suffix gives clips, or is listed as a fault."""

# fmt: off
OTHER_SUFFIXES = frozenset([
    ".avif", ".avifs", ".bmp", ".csv", ".db", ".heic", ".heif", ".htm", ".html", ".ini", ".jpeg", ".jpg", ".json",
    ".jsonl", ".log", ".md", ".ndjson", ".npy", ".npz", ".parquet", ".pdf", ".png", ".py", ".srt", ".svg", ".tar",
    ".tif", ".tiff", ".tsv", ".txt", ".vtt", ".webp", ".xml", ".yaml", ".yml", ".zip",
])
# fmt: on
"""Files with such a suffix are passed over. FFmpeg would open a text as a film of letters, a picture as one frame.

Files with any other suffix are opened, to see whether they hold a video.
"""
_BEGINNING = 1 << 12
"""Bytes at the start of a picture that say whether it is animated."""
_WEBP_ANIMATION_FLAG = 2
"""In the first byte of a WebP's chunk ``VP8X``."""


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
