from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_pipelines.videos import (
    gray_frames,
    gray_of,
    quadrants,
    set_display_matrix,
    write_h264,
    write_sound,
    write_video,
)
from tests.odd_files import ODD_FILES
from vdm.generation import input_video
from vdm.generation.input_video import InputVideo, read_end, read_video


def _numbers(video: InputVideo) -> list[int]:
    return gray_of(video.frames.permute(1, 2, 3, 0).numpy())


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.nut"])
def test_all_frames_of_any_container_are_read(tmp_path: Path, name: str) -> None:
    video = read_video(write_video(tmp_path / name, gray_frames(9)))

    assert video.frames.shape == (3, 9, 32, 48)
    assert _numbers(video) == list(range(9))
    assert video.fps == 8


@pytest.mark.parametrize(
    ("fps", "numbers"), [(4.0, [0, 2, 4, 6]), (16.0, [n // 2 for n in range(16)]), (8.0, list(range(8)))]
)
def test_frames_are_taken_at_the_rate_asked_for(tmp_path: Path, fps: float, numbers: list[int]) -> None:
    video = read_video(write_video(tmp_path / "film.mkv", gray_frames(8)), fps=fps)

    assert _numbers(video) == numbers
    assert video.fps == fps


def test_no_more_frames_than_asked_for_are_taken(tmp_path: Path) -> None:
    assert _numbers(read_video(write_video(tmp_path / "film.mkv", gray_frames(8)), fps=4, max_frames=3)) == [0, 2, 4]
    assert _numbers(read_video(tmp_path / "film.mkv", max_frames=99)) == list(range(8))


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.nut"])
@pytest.mark.parametrize(
    ("fps", "max_frames", "numbers"),
    [
        (8, 3, [37, 38, 39]),
        (4, 4, [33, 35, 37, 39]),
        (3, 4, [31, 34, 36, 39]),
        (16, 4, [38, 38, 39, 39]),
        (8, None, [*range(40)]),
        (8, 99, [*range(40)]),
        (0.1, 3, [39]),
    ],
)
def test_the_end_is_read_backwards_from_the_last_frame(
    tmp_path: Path, name: str, fps: float, max_frames: int | None, numbers: list[int]
) -> None:
    video = read_end(write_video(tmp_path / name, gray_frames(40)), (32, 48), fps, max_frames)

    assert _numbers(video) == numbers
    assert (video.fps, video.file_fps) == (fps, 8)


def test_of_a_long_video_no_more_is_decoded_than_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h264(tmp_path / "film.mp4", gray_frames(40) * 10)
    decoded: list[int] = []
    times = input_video._times
    monkeypatch.setattr(input_video, "_times", lambda *args: (found := times(*args), decoded.append(len(found)))[0])

    assert read_end(path, (32, 48), 8, 4).frames.shape[1] == 4
    assert decoded == [pytest.approx(16, abs=8)]


@pytest.mark.parametrize("times_ms", [[0, 100, 150, 1000], [0, 10, 20, 5000], [500, 600, 700, 800]])
def test_frames_at_odd_times_are_taken_by_their_times(tmp_path: Path, times_ms: list[int]) -> None:
    path = write_video(tmp_path / "film.mkv", gray_frames(4), times_ms=times_ms)
    wanted = [times_ms[-1] - 250 * number for number in range(3)][::-1]
    within = [time for time in wanted if time >= times_ms[0]]
    nearest = [min(range(4), key=lambda number: (abs(times_ms[number] - time), -number)) for time in within]

    assert _numbers(read_end(path, (32, 48), 4, 3)) == nearest


def test_more_frames_of_an_end_than_memory_has_room_for_are_refused(tmp_path: Path) -> None:
    path = write_h264(tmp_path / "a.mp4", gray_frames(8))
    with pytest.raises(ValueError, match=r"its frames take more than 8 GiB; input_frames=1864135 fits$"):
        read_end(path, (32, 48), 1e9)


def test_a_video_without_times_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "film.h264", gray_frames(24), codec="libx264", pix_fmt="yuv444p", options={"crf": "1"}
    )

    assert _numbers(read_end(path, (32, 48), 8, 3))[-1] == 23


def _corners(picture: np.ndarray) -> list[str]:
    names = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue", (255, 255, 255): "white"}
    height, width, _ = picture.shape
    places = product((height // 4, -height // 4), (width // 4, -width // 4))
    return [names[tuple((picture[place].astype(int) > 128) * 255)] for place in places]


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((1, 0, 0, 1), ["red", "green", "blue", "white"]),
        ((0, 1, -1, 0), ["blue", "red", "white", "green"]),
        ((0, -1, 1, 0), ["green", "white", "red", "blue"]),
        ((-1, 0, 0, -1), ["white", "blue", "green", "red"]),
    ],
    ids=["upright", "clockwise", "counterclockwise", "upside down"],
)
def test_frames_are_turned_as_players_turn_them(
    tmp_path: Path, matrix: tuple[int, int, int, int], corners: list[str]
) -> None:
    path = write_h264(tmp_path / "film.mp4", [quadrants(32, 64)] * 2)
    set_display_matrix(path, *matrix)
    frames = read_video(path, (20, 24)).frames

    assert frames.shape == (3, 2, 20, 24)
    assert _corners(frames[:, 1].permute(1, 2, 0).numpy()) == corners


def test_frames_cover_the_size_and_are_cut_in_the_middle(tmp_path: Path) -> None:
    picture = np.zeros((32, 96, 3), dtype=np.uint8)
    picture[:, 28:68] = 255

    assert read_video(write_video(tmp_path / "film.mkv", [picture]), (16, 16)).frames.min() > 250


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "film.mp4", [quadrants(32, 48)], codec="libx264", pix_fmt="yuv444p", pixel_aspect=Fraction(2)
    )

    assert read_video(path).frames.shape == (3, 1, 32, 96)


def test_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(quadrants(20, 30)).save(tmp_path / "picture.png")
    path = tmp_path / "picture.png"
    for video in (read_video(path), read_video(path, fps=8, max_frames=3), read_end(path, (20, 30), 8, 3)):
        assert video.frames.shape == (3, 1, 20, 30)
        assert _corners(video.frames[:, 0].permute(1, 2, 0).numpy()) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "sound", "cut"])
def test_what_is_no_video_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "film.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "sound":
        write_sound(path)
    elif kind == "cut":
        whole = write_h264(tmp_path / "whole.mp4", gray_frames(8)).read_bytes()
        path.write_bytes(whole[: whole.index(b"mdat") + 8])
    elif kind != "missing":
        path.write_bytes({"text": b"hello " * 99, "empty": b""}[kind])
    reasons = r"no such file|can't be read as a video: .+|there is no video in it|there are no frames in it"

    for read in (read_video, lambda path: read_end(path, (16, 16), 8, 3)):
        with pytest.raises(ValueError, match=rf"^input={path}: ({reasons})$") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    ODD_FILES[kind](tmp_path / "film.mp4")
    with pytest.raises(ValueError, match=rf"^input=.*: can't be read as a video: is {kind}, not a file$"):
        read_video(tmp_path / "film.mp4")


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    write_h264(tmp_path / "a.mp4", gray_frames(4))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(ValueError, match=r"^input=.*: can't be read as a video: is no video, or it is a list"):
        read_video(tmp_path / "list.mp4")


def test_more_frames_than_memory_has_room_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h264(tmp_path / "a.mp4", gray_frames(8))
    monkeypatch.setattr(input_video, "MAX_BYTES", 5 * 32 * 48 * 3)
    with pytest.raises(ValueError, match=r"its frames take more than 0 GiB; input_frames=5 takes the first$"):
        read_video(path)
    assert read_video(path, max_frames=5).frames.shape[1] == 5


def test_a_picture_that_would_be_scaled_to_very_many_pixels_is_refused(tmp_path: Path) -> None:
    path = write_h264(tmp_path / "a.mp4", gray_frames(2, height=2, width=4096))
    with pytest.raises(ValueError, match=r"^input=.*: can't be used: a picture of 512x1048576 pixels"):
        read_video(path, size=(512, 512))
