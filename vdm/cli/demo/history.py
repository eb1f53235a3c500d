"""What was made before, by the page and by ``vdm sample``: read from the folders of results."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from vdm.cli.next_step import command
from vdm.cli.sample_settings import Settings

MAX_SHOWN = 24
"""Calls that are shown, at most."""
_HIDDEN = frozenset({"checkpoint", "prompts", "sampler", "guidance", "batch_size", "ema", "num_videos"})
"""Options that a line of settings leaves out, or shows in another way."""
_NUMBER_OF_DIGITS = range(4, 13)


@dataclass(frozen=True)
class Made:
    """An earlier call whose videos are there."""

    folder: Path
    video: Path
    """Its first video."""
    options: Mapping[str, Any]
    """All its options in effect."""

    @property
    def key(self) -> str:
        """What tells it from others on the page; no path."""
        return hashlib.blake2b(str(self.folder.absolute()).encode(errors="surrogateescape"), digest_size=8).hexdigest()

    @property
    def caption(self) -> str:
        """The caption of its first video, else its class, first frame or input, in words."""
        prompts, labels = self.options.get("prompts"), self.options.get("labels")
        if isinstance(prompts, list) and prompts:
            return str(prompts[0])
        if labels is not None:
            return f"class {labels}"
        given = {"image": "from a picture", "input": "from a video"}
        return next((words for key, words in given.items() if self.options.get(key)), "without conditions")

    @property
    def command(self) -> str:
        """The command that makes the same again."""
        return command("vdm sample", settings=self.folder / "settings.json")

    @property
    def settings(self) -> Iterator[tuple[str, str]]:
        """Yield names and values of the settings worth a look."""
        sampler = self.options.get("sampler")
        if isinstance(sampler, Mapping):
            yield "sampler", str(sampler.get("_target_", "")).rpartition(".")[2]
            yield "steps", str(sampler.get("num_steps", ""))
        for key, value in self.options.items():
            if key not in _HIDDEN and value not in (None, "", False):
                yield key, str(value)


def made_before(folders: Sequence[Path], number: int = MAX_SHOWN) -> list[Made]:
    """Return the latest calls in folders of results, the newest first."""
    numbered = {path for folder in folders if folder.is_dir() for path in folder.iterdir() if _is_numbered(path)}
    newest = nlargest(2 * number, numbered, key=lambda path: (path.stat().st_mtime_ns, path.name))
    found: list[Made] = []
    for folder in newest:
        if (made := _read(folder)) is not None:
            found.append(made)
        if len(found) == number:
            break
    return found


def _is_numbered(path: Path) -> bool:
    return path.name.isdecimal() and len(path.name) in _NUMBER_OF_DIGITS and path.is_dir() and not path.is_symlink()


def _read(folder: Path) -> Made | None:
    """Return the call whose results are in a folder; None if it made nothing that is still there."""
    try:
        settings = Settings.read_file(folder / "settings.json", allow_own_code=True)
    except ValueError:
        return None
    videos = (folder / name for name in settings.made.videos if Path(name).name == name)
    video = next((path for path in videos if path.is_file() and not path.is_symlink()), None)
    return None if video is None else Made(folder, video, settings.options)
