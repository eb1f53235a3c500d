from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipelines.decoding import VideoReader, orientation, picture, shown_size
from tests.data_pipelines.videos import gray_frames, quadrants, set_display_matrix, write_h264, write_video


def _first_frame(path: Path) -> tuple[av.VideoFrame, float]:
    with av.open(path) as container:
        reader = VideoReader(container)
        return next(reader.frames()).frame, reader.pixel_aspect()


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_rotated_video_is_turned_as_ffmpeg_says(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    coded = quadrants(32, 64)
    path = write_h264(tmp_path / "a.mp4", [coded])
    set_display_matrix(path, *matrix)

    frame, aspect = _first_frame(path)
    height, width = shown_size(frame, aspect)
    shown = picture(frame, aspect, height, width)

    expected = np.rot90(coded, frame.rotation // 90)  # both count quarter turns counterclockwise
    assert shown.shape == expected.shape
    assert _differ_little(shown, expected)


@pytest.mark.parametrize(("a", "b"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
@pytest.mark.parametrize("mirror", [-1, 1])
def test_every_display_matrix_sends_corners_where_it_says(tmp_path: Path, a: int, b: int, mirror: int) -> None:
    c, d = -b * mirror, a * mirror
    coded = quadrants(32, 64)
    path = write_h264(tmp_path / "a.mp4", [coded])
    set_display_matrix(path, a, b, c, d)

    frame, aspect = _first_frame(path)
    shown = picture(frame, aspect, *shown_size(frame, aspect))

    for p, q in [(8, 8), (56, 8), (8, 24), (56, 24)]:
        column = (a * p + c * q) % shown.shape[1]  # a negative place is counted from the far edge
        row = (b * p + d * q) % shown.shape[0]
        assert _differ_little(shown[row, column], coded[q, p])


def test_frames_without_matrix_stay_as_they_are(tmp_path: Path) -> None:
    frame, _ = _first_frame(write_h264(tmp_path / "a.mp4", [quadrants(32, 32)]))

    assert orientation(frame).apply(np.arange(12).reshape(2, 2, 3).astype(np.uint8)).ravel().tolist() == [*range(12)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_wide_pixels_are_stretched(tmp_path: Path, name: str) -> None:
    coded = np.zeros((64, 64, 3), dtype=np.uint8)
    coded[16:48, 24:40] = 255  # half as wide as it is high, until the pixels are shown twice as wide
    path = write_video(
        tmp_path / name, [coded], codec="libx264", pix_fmt="yuv444p", pixel_aspect=Fraction(2), options={"crf": "1"}
    )

    frame, aspect = _first_frame(path)
    shown = picture(frame, aspect, 64, 64)[..., 0] > 127

    assert (aspect, shown_size(frame, aspect)) == (2, (64, 128))
    assert (np.ptp(np.nonzero(shown.any(1))), np.ptp(np.nonzero(shown.any(0)))) == (31, 31)


def test_picture_is_cropped_centrally(tmp_path: Path) -> None:
    coded = np.tile(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (32, 1, 3))
    frame, aspect = _first_frame(write_video(tmp_path / "a.mkv", [coded]))

    np.testing.assert_array_equal(picture(frame, aspect, 32, 32), coded[:, 32:64])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (128, 16), (16, 128), (200, 300)])
def test_any_size_is_covered(tmp_path: Path, height: int, width: int) -> None:
    frame, aspect = _first_frame(write_video(tmp_path / "a.mkv", gray_frames(1)))

    shown = picture(frame, aspect, height, width)

    assert shown.shape == (height, width, 3)
    assert (shown == 10).all()


@pytest.mark.parametrize("height", [360, 720])
def test_colour_without_a_tag_is_by_height_as_players_do(tmp_path: Path, height: int) -> None:
    coded = np.full((height, 64, 3), (200, 30, 60), dtype=np.uint8)
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = height, 64, "yuv444p"
        frame = av.VideoFrame.from_ndarray(coded, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709" if height >= 720 else "ITU601")
        frame.colorspace = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    frame, aspect = _first_frame(path)

    assert _differ_little(picture(frame, aspect, 64, 64), coded[:64])


def _differ_little(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.abs(a.astype(int) - b.astype(int)).mean()) < 6
