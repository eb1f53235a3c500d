"""Folders of videos with things in them that are none, and output folders with things that are the user's."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.decoding import VideoReader
from tests.data_pipelines.conftest import Build
from tests.data_pipelines.videos import CLIP, gray_frames, video_file, write_h264
from tests.odd_files import ODD_FILES
from vdm.data.index import read_index
from vdm.data.video_listing import list_videos


def _faults(err: str) -> list[str]:
    lines = err.replace("\r", "\n").splitlines()
    return [line for line in lines if line and not line.startswith(("cutting clips", "writing shards"))]


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if kind != "a folder"])
def test_what_is_no_file_among_videos_is_named_and_the_rest_is_built(
    videos: Path, run_build: Build, tmp_path: Path, kind: str
) -> None:
    for name in ("odd.mp4", "a.txt", "b.json", "no_suffix"):
        ODD_FILES[kind](videos / name)
    done = run_build()
    assert done.code == 1
    assert sorted(_faults(done.err)) == [
        "Not videos, passed over: 1 no suffix",
        f"a.mp4: a.txt beside it can't be read: is {kind}, not a file",
        f"b.mp4: b.json beside it can't be read: is {kind}, not a file",
        f"odd.mp4: is {kind}, not a file",
    ]
    assert sum(read_index(tmp_path / "shards").num_samples(split) for split in ("train", "validation")) == 12


def test_a_manifest_that_is_a_pipe_is_one_line(videos: Path, run_build: Build) -> None:
    os.mkfifo(videos / "manifest.tsv")
    with pytest.raises(ValueError, match=r"manifest.tsv: can't be read: is a named pipe, not a file$"):
        run_build()


def test_a_list_of_other_files_gives_no_clips_and_calls_nobody(videos: Path, run_build: Build) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        port = server.getsockname()[1]
        (videos / "list.mp4").write_text(f"ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n")
        (videos / "local.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
        (videos / "show.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
        done = run_build()
        with pytest.raises(BlockingIOError):
            server.accept()
    lines = _faults(done.err)
    assert [line.partition(":")[0] for line in lines] == ["list.mp4", "local.mp4", "Not videos, passed over"]
    assert all("list of other files" in line for line in lines[:2])


def test_odd_names_are_printed_as_text_and_told_apart(videos: Path, run_build: Build, tmp_path: Path) -> None:
    film = (videos / "a.mp4").read_bytes()
    for name in (b"caf\xe8.mp4", b"caf\xe9.mp4"):
        Path(os.fsdecode(os.fsencode(videos) + b"/" + name)).write_bytes(film)
    (videos / "bad\n\x1b[2J\u202e.mp4").write_bytes(b"")
    done = run_build()
    note, fault = sorted(_faults(done.err))
    assert note.startswith(
        "1 recording of several files, which go to one side of the split, such as a.mp4 and caf\ufffd.mp4"
    )
    assert fault == r"bad\n\x1b[2J\u202e.mp4: is empty (0 bytes)"
    report = json.loads((tmp_path / "shards" / "report.json").read_text())
    assert len({row["source"] for row in report["sources"]}) == 6
    assert sum(len(row["keys"]) for row in report["sources"]) == 20


@pytest.mark.parametrize("text", ["[" * 10**5, '{"caption": {"a": 1}}', '{"label": 1%s}' % ("0" * 5000), "\ufeff{"])
def test_an_odd_file_beside_a_video_is_a_fault_of_that_video(videos: Path, run_build: Build, text: str) -> None:
    (videos / "a.json").write_text(text)
    done = run_build()
    (line,) = (line for line in _faults(done.err) if not line.startswith("Not videos"))
    assert line.startswith("a.mp4: a.json beside it ")
    assert len(line) < 300


def test_half_characters_of_a_caption_do_not_end_a_build(videos: Path, run_build: Build) -> None:
    (videos / "a.json").write_text('{"caption": "\\ud800 \\udfff", "label": "\\ud83d"}')
    assert run_build().code == 0


def test_only_shards_of_its_own_are_replaced_when_a_set_is_built_again(
    videos: Path, run_build: Build, tmp_path: Path
) -> None:
    run_build()
    mine = [
        tmp_path / "shards" / name for name in ("train-mine.tar", "train-000000.tar.bak", "validation-notes.index.json")
    ]
    for path in mine:
        path.write_text("mine")
    write_h264(videos / "d.mp4", gray_frames(16))
    run_build()
    assert all(path.read_text() == "mine" for path in mine)


def test_a_folder_of_parts_that_is_not_its_own_is_refused(run_build: Build, tmp_path: Path) -> None:
    for make in (lambda path: path.mkdir(), lambda path: path.symlink_to(tmp_path), lambda path: path.touch()):
        output = tmp_path / f"shards{len(list(tmp_path.iterdir()))}"
        output.mkdir()
        make(output / ".parts")
        with pytest.raises(ValueError, match=r"has a \.parts that is not from vdm-data build; choose another folder$"):
            run_build(output=output)
        assert [path.name for path in output.iterdir()] == [".parts"]


def test_a_frame_that_claims_to_last_for_years_makes_no_clips_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_h264(tmp_path / "a.mp4", gray_frames(16))
    monkeypatch.setattr(VideoReader, "_times", lambda self, frame, previous: (frame.time, 1e9))
    assert len(list(video_file(film, replace(CLIP, num_frames=1)).clips())) < 30


def test_a_long_and_narrow_picture_is_not_blown_up(tmp_path: Path) -> None:
    film = write_h264(tmp_path / "a.mp4", gray_frames(16, height=2, width=4096))

    video = replace(video_file(film), settings=replace(CLIP, height=1024, width=1024))
    with pytest.raises(ValueError, match=r"a picture of 1024x2097152 pixels"):
        list(video.clips())


def test_other_files_are_looked_into_without_opening_what_they_name(tmp_path: Path) -> None:
    write_h264(tmp_path / "a.mp4", gray_frames(4))
    (tmp_path / "list").write_text("ffconcat version 1.0\nfile a.mp4\n")
    videos, others = list_videos(tmp_path, excluded=[])
    assert ([path.name for path in videos], [path.name for path in others]) == (["a.mp4"], ["list"])
