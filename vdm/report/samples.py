"""Videos that a run sampled during training, and which of them fit on the page."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.layout import step_of
from vdm.records import read_record
from vdm.regular_files import open_regular, read_limited

MAX_VIDEO_BYTES = 1 << 23
"""A larger video is left out."""
_VIDEO = re.compile(r"\d{4,12}\.mp4")
_GRID = "grid.mp4"
_STEP = re.compile(r"step=\d+")


class _Prompt(TypedDict):
    video: str
    caption: NotRequired[str | None]
    label: NotRequired[str | None]
    reference: NotRequired[str | None]


@dataclass(frozen=True)
class Prompt:
    """What one of the videos of each step was sampled from."""

    video: str
    """Name of the video's file in the folder of each step."""
    caption: str | None
    label: str | None
    reference: Path | None
    """The held-out clip whose prompt it is."""


@dataclass(frozen=True)
class Samples:
    """The sampled videos of a run."""

    prompts: Sequence[Prompt]
    steps: Sequence[tuple[int, Path]]
    """Steps with their folders, in order."""
    left_out: str = ""
    """What the page does not show of them, in words."""

    def videos(self) -> list[Path]:
        """Return all files."""
        return [
            *(prompt.reference for prompt in self.prompts if prompt.reference is not None),
            *(folder / prompt.video for _, folder in self.steps for prompt in self.prompts),
        ]

    def num_bytes(self) -> int:
        """Return the length of all files within the page, as base64."""
        return sum(4 * ceil(_size(path) / 3) for path in self.videos())


def samples_of(run: Path) -> Samples:
    """Return the sampled videos of a run: single clips, or grids of them in runs that have no others.

    Raises:
        ValueError: In one line, if the list of prompts is damaged.
    """
    if (run / "samples").is_symlink():
        return Samples([], [])
    found = [path for path in (run / "samples").glob("step=*") if _STEP.fullmatch(path.name)]
    folders = [path for path in found if path.is_dir() and not path.is_symlink()]
    steps = [(step_of(folder), folder) for folder in sorted(folders, key=step_of)]
    listed = next((folder / "prompts.json" for _, folder in steps[::-1] if (folder / "prompts.json").exists()), None)
    if listed is None:
        with_grid = [(step, folder) for step, folder in steps if _size(folder / _GRID)]
        return Samples([Prompt(_GRID, None, None, None)] if with_grid else [], with_grid)
    told = read_record(listed, list[_Prompt])
    prompts = [_prompt(run, one) for one in told if _VIDEO.fullmatch(one["video"])]
    alike = [(step, folder) for step, folder in steps if _captions(folder / listed.name) in (None, _captions(listed))]
    left_out = "" if len(alike) == len(steps) else f"Steps with other prompts are left out: {len(steps) - len(alike)}."
    return Samples(prompts, alike, left_out)


def _captions(listed: Path) -> list[str | None] | None:
    """Return the captions of a step; None if they are not known."""
    return [one.get("caption") for one in read_record(listed, list[_Prompt])] if listed.exists() else None


def _prompt(run: Path, told: _Prompt) -> Prompt:
    name = Path(told.get("reference") or "").name  # only its name counts: it must not lead elsewhere
    reference = run / "samples" / "references" / name
    is_there = bool(_VIDEO.fullmatch(name)) and not reference.parent.is_symlink() and _size(reference) > 0
    return Prompt(told["video"], told.get("caption"), told.get("label"), reference if is_there else None)


def fitting(samples: Samples, max_videos: int, max_bytes: int) -> Samples:
    """Return as many of the samples as fit: evenly spaced steps, the last one among them, then fewer videos of a step.

    Args:
        samples: All samples of a run.
        max_videos: Videos of each step, at most.
        max_bytes: What they may take of the page.
    """
    num_steps, num_prompts = len(samples.steps), len(samples.prompts)
    chosen = replace(samples, prompts=samples.prompts[:max_videos])
    while chosen.steps and chosen.num_bytes() > max_bytes:
        if len(chosen.steps) > 1:
            chosen = replace(chosen, steps=_evenly(samples.steps, _next_number(chosen, max_bytes)))
        elif len(chosen.prompts) > 1:
            chosen = replace(chosen, prompts=chosen.prompts[:-1])
        else:
            chosen = replace(chosen, steps=())
    said = []
    if len(chosen.steps) < num_steps:
        said.append(f"{len(chosen.steps)} of {num_steps} sampled steps, as many as fit")
    if len(chosen.prompts) < num_prompts:
        said.append(f"{len(chosen.prompts)} of {num_prompts} videos of a step")
    shown = [f"Shown: {' and '.join(said)}."] if said else []
    return replace(chosen, left_out=" ".join([*filter(None, [samples.left_out]), *shown]))


def _next_number(chosen: Samples, max_bytes: int) -> int:
    """Return a smaller number of steps to try: what would fit if all steps were alike, but at least one less."""
    share = int(len(chosen.steps) * max_bytes / max(1, chosen.num_bytes()))
    return max(1, min(len(chosen.steps) - 1, share))


def _evenly(steps: Sequence[tuple[int, Path]], number: int) -> Sequence[tuple[int, Path]]:
    """Return ``number`` of the steps at equal distances, the last one among them."""
    if number == 1:
        return steps[-1:]
    places = {round(index * (len(steps) - 1) / (number - 1)) for index in range(number)}
    return [steps[place] for place in sorted(places)]


def read_video(path: Path) -> bytes:
    """Return the content of a video; nothing if it is missing, being written, too large, or a link.

    A link in a run of somebody else could lead to any file, which would then be in the page.
    """
    try:
        return b"" if path.is_symlink() else read_limited(path, MAX_VIDEO_BYTES)
    except OSError:
        return b""


def _size(path: Path) -> int:
    """Return the length of a regular file; 0 if it is none, or would be left out."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return 0
    if path.is_symlink():
        return 0
    return size if size <= MAX_VIDEO_BYTES else 0
