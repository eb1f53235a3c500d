"""Real videos to test with: not part of the repository, so tests that want them are skipped where they are not."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

VIDEOS = Path(os.environ.get("VDM_VIDEOS", Path(__file__).parents[2] / "shared/videos"))
"""A folder of videos, by default beside the repository."""


def smallest_videos(num_files: int) -> list[str]:
    """Return the names of the smallest videos, or skip the test."""
    files = [path for path in VIDEOS.glob("*.m*") if path.suffix in (".mp4", ".mkv")]
    if len(files) < num_files:
        pytest.skip(f"{VIDEOS} has no {num_files} videos; VDM_VIDEOS names another folder")
    return [path.name for path in sorted(files, key=lambda path: (path.stat().st_size, path.name))[:num_files]]


def linked(folder: Path, names: Sequence[str]) -> Path:
    """Make a folder with links to videos, or skip the test if one of them is missing."""
    if missing := [name for name in names if not (VIDEOS / name).is_file()]:
        pytest.skip(f"{VIDEOS / missing[0]} is not there; VDM_VIDEOS names another folder")
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(VIDEOS / name)
    return folder
