import os
from pathlib import Path

import pytest

from data_pipelines.sources import source_key
from tests.data_pipelines.videos import gray_frames, write_video
from vdm.data.video_listing import list_videos
from vdm.text import printable


def _names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_videos_are_found_in_nested_folders_and_other_files_told_apart(tmp_path: Path) -> None:
    for name in (
        "b.MP4",
        "a/b/c.webm",
        "notes.txt",
        "a/b/c.json",
        "picture.png",
        ".hidden.mp4",
        ".git/x.mp4",
        "out/y.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    videos, others = list_videos(tmp_path, excluded=[tmp_path / "out"])

    assert _names(videos, tmp_path) == ["a/b/c.webm", "b.MP4"]
    assert _names(others, tmp_path) == ["a/b/c.json", "notes.txt", "picture.png"]


def test_file_whose_name_says_nothing_is_looked_into(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", gray_frames(4)).rename(tmp_path / "film")
    (tmp_path / "letter").write_text("Dear Sir,\n")
    (tmp_path / "nothing").touch()

    videos, others = list_videos(tmp_path, excluded=[tmp_path / "out"])

    assert (_names(videos, tmp_path), _names(others, tmp_path)) == (["film"], ["letter", "nothing"])


def test_links_that_lead_back_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mp4").touch()
    (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)

    videos, _ = list_videos(tmp_path, excluded=[tmp_path / "out"])

    assert _names(videos, tmp_path) == ["a/x.mp4"]


@pytest.mark.parametrize("name", ["a.b.mp4", "ä/ö ü.mp4", "x" * 300 + ".mp4", "…", "-.mp4"])
def test_keys_are_safe_in_shards(name: str) -> None:
    assert set(source_key(name)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert len(source_key(name)) < 80


def test_keys_tell_files_of_one_name_apart() -> None:
    assert source_key("a/clip.mp4") != source_key("b/clip.mp4") != source_key("b/clip.mkv")


def test_file_names_that_are_not_unicode_can_be_printed() -> None:
    assert printable(os.fsdecode(b"caf\xe9.mp4")) == "caf\ufffd.mp4"
