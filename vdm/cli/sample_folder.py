"""The output files of a call of ``vdm sample``: in a new folder, or under the next free numbers of an existing one.

::

    FOLDER/
        settings.json         of the call whose videos begin with number 0
        0000-a-dog.mp4 ...
        grid.mp4, grid.gif, grid.png
        settings-0004.json    of a later call, whose videos begin with number 4
        0004-a-cat.mp4 ...
        grid-0004.mp4 ...
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from vdm.cli.sample_settings import ELSEWHERE, FORMAT, FORMAT_KEY, MAX_BYTES, Made, Settings, comment_of
from vdm.config import ConfigError
from vdm.files import create_file
from vdm.generation.video_files import GRID_NAME, GRID_SUFFIXES, file_name
from vdm.outside import parse_object, read_text
from vdm.text import printable

_VIDEO = re.compile(r"(\d{4,12})(-.*)?\.mp4", re.DOTALL)
_SETTINGS = re.compile(r"settings(-(\d{4,12}))?\.json")
_MAX_COMMENT = 1 << 16
"""Characters of the settings in an mp4, at most."""
_MAX_TITLE = 1000


@dataclass(frozen=True)
class CallFiles:
    """The files of one call; no other call has files of these names.

    Args:
        settings: The file with the call's settings.
        videos: The files of the videos.
        grid: Name of the grid's files, without suffix.
        comment: Comment in the mp4 files: the settings, if they are not too long.
    """

    settings: Path
    videos: Sequence[Path]
    grid: str
    comment: str

    def metadata(self, caption: str) -> dict[str, str]:
        """Return the tags of an mp4 with this caption."""
        title = {"title": printable(caption, _MAX_TITLE)} if caption else {}
        return {**title, "comment": self.comment}


def make_output_folder(folder: Path, key: str = "output") -> None:
    """Make a folder for results, if it does not exist; ``key`` names the option.

    Raises:
        ConfigError: If nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={folder}: can't be written to: {error.strerror}") from None


def new_folder(parent: Path) -> Path:
    """Make a folder with the next free number, which no other process gets."""
    numbers = [int(path.name) for path in parent.iterdir() if re.fullmatch(r"\d{4,12}", path.name)]
    for number in count(max(numbers, default=-1) + 1):
        folder = parent / f"{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("there are always further numbers")


def begin_call(folder: Path, captions: Sequence[str], content: Mapping[str, Any]) -> CallFiles:
    """Record the settings of a call, which reserves the numbers of its videos for this process.

    Args:
        folder: Folder of the results.
        captions: One for each video.
        content: The settings; names and numbers of the videos are added.
    """
    while True:
        first = _next_number(folder)
        suffix = f"-{first:04d}" if first else ""
        names = [file_name(first + index, caption) for index, caption in enumerate(captions)]
        made = {**content.get("made", {}), "first": first, "videos": names}
        content = {FORMAT_KEY: FORMAT, **content, "made": made}
        settings = folder / f"settings{suffix}.json"
        if create_file(settings, f"{json.dumps(content, indent=1)}\n"):
            comment = json.dumps(content)
            if len(comment) > _MAX_COMMENT:
                comment = json.dumps({FORMAT_KEY: FORMAT, ELSEWHERE: settings.name})
            return CallFiles(settings, [folder / name for name in names], f"grid{suffix}", comment)


def _next_number(folder: Path) -> int:
    """Return the number after those of all videos that exist, or that another call is making."""
    return max((number + 1 for path in folder.iterdir() for number in _numbers(path)), default=0)


def _numbers(path: Path) -> Iterator[int]:
    """Yield the number in a file's name and, for settings, the number of the call's last video."""
    if found := _VIDEO.fullmatch(path.name):
        yield int(found[1])
    elif found := GRID_NAME.fullmatch(path.name):
        yield int(found[2] or 0)
    elif found := _SETTINGS.fullmatch(path.name):
        first, made = int(found[2] or 0), _made(path)
        yield first
        if made is not None:
            yield first + max(len(made.videos) - 1, 0)


def _made(path: Path) -> Made | None:
    """Return the record of what a call made from its settings; None if the file has no settings."""
    try:
        return Settings.parse(read_text(path, MAX_BYTES), path).made
    except ValueError:
        return None


def results_in(folder: Path) -> list[Path]:
    """Return the files of earlier calls in a folder: those with settings in them, and their grids."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        if _VIDEO.fullmatch(path.name) and _is_of_a_call(path):
            found.append(path)
        elif (match := _SETTINGS.fullmatch(path.name)) and _made(path) is not None:
            grids = (folder / f"grid{match[1] or ''}.{suffix}" for suffix in GRID_SUFFIXES)
            found += [path, *(grid for grid in grids if grid.is_file() and not grid.is_symlink())]
    return found


def _is_of_a_call(video: Path) -> bool:
    try:
        return FORMAT_KEY in parse_object(comment_of(video)[: 2 * _MAX_COMMENT], video)
    except ValueError:
        return False
