"""The videos of a folder as a source of clips."""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Self, TypeVar

from vdm.data.video_listing import list_videos
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.sources.base import Block, UnusableClip, Views, shuffled, view
from vdm.evaluation.sources.file_digests import FileDigests
from vdm.generation.input_video import InputVideo, read_video
from vdm.generation.video_files import GRID_NAME
from vdm.regular_files import read_limited
from vdm.text import decode_text

_MAX_TEXT = 1 << 16
"""Bytes of a caption's file."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class VideoFolder:
    """All videos below a folder, in a fixed random order.

    The caption of ``a.mp4`` is the text of ``a.txt`` if there is one, else the title in the file's metadata.

    Grids that ``vdm sample`` has made are no videos of it.

    Args:
        folder: The folder.
        num_threads: Videos that are decoded at once.
        digests: SHA-256 of files that are known from before.

    Raises:
        ValueError: If the folder is missing or has no videos.
    """

    block_size = 16

    def __init__(self, folder: Path, num_threads: int = 2, digests: FileDigests | None = None) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        self.name = str(folder)
        self._folder = folder
        self._num_threads = num_threads
        self._digests = digests or FileDigests(None)
        self._files = shuffled([path for path in list_videos(folder, ())[0] if not _is_grid(path)])
        if not self._files:
            raise ValueError(f"{folder}: no videos in it")

    def __len__(self) -> int:
        return len(self._files)

    def like(self, videos: "VideoFolder") -> Self:
        """Return the videos of this folder that have the names of another's, in the order of the other.

        Raises:
            ValueError: If one is missing, or two have the same name.
        """
        found: dict[str, Path] = {}
        for path in self._files:
            if found.setdefault(self._key(path), path) != path:
                raise ValueError(f"{self.name}: has two videos named {self._key(path)}")
        keys = [videos._key(path) for path in videos._files]
        missing = [key for key in keys if key not in found]
        if missing:
            raise ValueError(f"{self.name}: has no video named {missing[0]}, to compare that of {videos.name} with")
        chosen = copy(self)
        chosen._files = [found[key] for key in keys]
        return chosen

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder).with_suffix("").as_posix()

    @property
    def identity(self) -> str:
        """SHA-256 of names and contents."""
        digest = hashlib.sha256()
        for path, content in zip(self._files, self._digests.of(self._folder, self._files), strict=True):
            digest.update(f"{path.relative_to(self._folder)}\0".encode(errors="surrogateescape"))
            digest.update(content)
        return digest.hexdigest()

    def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
        """See ``ClipSource.views``."""
        numbers = [number for block in blocks for number in block]
        views = ahead(lambda number: self._views(self._files[number], rules), numbers, self._num_threads)
        yield from zip(numbers, views, strict=True)

    def _views(self, path: Path, rules: Collection[ClipRule]) -> Views:
        key = self._key(path)
        max_frames = None if any(rule.start == "center" for rule in rules) else max(rule.num_frames for rule in rules)
        try:
            video = read_video(path, max_frames=max_frames, min_seconds=max(rule.seconds for rule in rules))
        except ValueError as error:
            reason = str(error).removeprefix(f"input={path}: ").partition("; input_frames=")[0]
            return dict.fromkeys(rules, UnusableClip(key, reason, is_unreadable=True))
        caption = _caption(path, video)
        return {rule: view(video.frames, rule, key, video.fps, caption, times=video.times) for rule in rules}


def _caption(path: Path, video: InputVideo) -> str:
    try:
        return decode_text(read_limited(path.with_suffix(".txt"), _MAX_TEXT))[0].strip()
    except (OSError, ValueError):
        return video.title


def _is_grid(path: Path) -> bool:
    """Tell whether a file is a grid that ``vdm sample`` has made, which has its settings beside it."""
    return GRID_NAME.fullmatch(path.name) is not None and any(path.parent.glob("settings*.json"))


def ahead(function: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """Yield the function's results in order; threads compute them ahead, a few more than there are threads."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
