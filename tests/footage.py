"""Real videos to test with: not part of the repository, so tests that want them are skipped where they are not."""

import os
from pathlib import Path

import pytest

VIDEOS = Path(os.environ.get("VDM_TEST_VIDEOS", Path(__file__).parents[2] / "shared" / "videos"))
"""A folder of videos, by default beside the repository."""


def some_videos(folder: Path, num_files: int) -> Path:
    """Link the smallest videos into a folder."""
    files = sorted(
        (path for path in VIDEOS.glob("*.m*") if path.suffix != ".tsv"), key=lambda path: path.stat().st_size
    )
    if len(files) < num_files:
        pytest.skip(f"{VIDEOS} has no {num_files} videos; VDM_TEST_VIDEOS names another folder")
    folder.mkdir()
    for file in files[:num_files]:
        (folder / file.name).symlink_to(file)
    return folder
