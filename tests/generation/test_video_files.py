from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vdm.generation.video_files import (
    GRID_GAP,
    captioned_grid,
    enlarged,
    file_name,
    grid,
    write_film_strips,
    write_grid,
    write_mp4,
)


def _smooth(num_frames: int, height: int, width: int) -> Tensor:
    """Return colours that change slowly over space and time, which h264 keeps well."""
    t, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (num_frames, height, width)), indexing="ij")
    return (255 * torch.stack([x, y, (x + t) / 2])).round().byte()


def _read(path: Path) -> tuple[Tensor, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        return torch.stack(frames).permute(3, 0, 1, 2), float(stream.average_rate or 0)


@pytest.mark.parametrize("num_frames", [1, 2, 9])
@pytest.mark.parametrize("fps", [8, 29.97, 0.5])
def test_written_video_reads_back_with_its_frames_and_speed(tmp_path: Path, num_frames: int, fps: float) -> None:
    video = _smooth(num_frames, 32, 48)
    write_mp4(tmp_path / "v.mp4", video, fps)
    read, read_fps = _read(tmp_path / "v.mp4")

    assert read.shape == video.shape
    assert read_fps == pytest.approx(fps, rel=1e-3)
    assert (read.float() - video.float()).abs().mean() < 4


@pytest.mark.parametrize("size", [(15, 17), (16, 17), (1, 1), (64, 33)])
def test_odd_sizes_are_filled_up_with_their_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    video = _smooth(3, *size)
    write_mp4(tmp_path / "v.mp4", video, 8)
    read, _ = _read(tmp_path / "v.mp4")
    height, width = size

    assert read.shape[-2:] == (height + height % 2, width + width % 2)
    assert (read[..., :height, :width].float() - video.float()).abs().mean() < 12


def test_video_says_that_it_is_h264_for_every_player(tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", _smooth(2, 16, 16), 8)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]

        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_grid_has_gaps_and_a_near_square_shape() -> None:
    videos = [torch.full((3, 2, 4, 6), value, dtype=torch.uint8) for value in range(5)]
    laid = grid(videos)

    assert laid.shape == (3, 2, 2 * 4 + GRID_GAP, 3 * 6 + 2 * GRID_GAP)
    for index in range(5):
        top, left = (index // 3) * (4 + GRID_GAP), (index % 3) * (6 + GRID_GAP)
        assert (laid[..., top : top + 4, left : left + 6] == index).all()
    assert (laid[..., 4 : 4 + GRID_GAP, :] == 128).all(), "the gap between the rows"
    assert (laid[..., 4 + GRID_GAP :, 2 * (6 + GRID_GAP) :] == 128).all(), "the place without a video"


@pytest.mark.parametrize(("number", "shape"), [(1, (1, 1)), (2, (1, 2)), (4, (2, 2)), (7, (3, 3))])
def test_grid_of_any_number(number: int, shape: tuple[int, int]) -> None:
    laid = grid([torch.zeros(3, 1, 8, 8, dtype=torch.uint8)] * number)

    assert laid.shape[-2:] == tuple(count * (8 + GRID_GAP) - GRID_GAP for count in shape)


@pytest.mark.parametrize(("size", "factor"), [((64, 32), 4), ((60, 40), 5), ((300, 10), 1), ((256, 256), 1)])
def test_small_videos_are_enlarged_by_whole_factors(size: tuple[int, int], factor: int) -> None:
    video = torch.arange(size[0] * size[1]).reshape(1, 1, *size).byte()
    large = enlarged(video, 256)

    assert large.shape[-2:] == (factor * size[0], factor * size[1])
    assert torch.equal(large[..., ::factor, ::factor], video)
    assert torch.equal(large[..., factor - 1 :: factor, factor - 1 :: factor], video)


def test_film_strips_have_a_row_a_video_and_a_column_a_frame(tmp_path: Path) -> None:
    videos = [torch.full((3, 4, 8, 8), 10 * row, dtype=torch.uint8) for row in range(2)]
    for video in videos:
        video += torch.arange(4, dtype=torch.uint8)[:, None, None]
    write_film_strips(tmp_path / "strips.png", videos)
    picture = np.asarray(Image.open(tmp_path / "strips.png"))
    width, height = 4 * (8 + GRID_GAP) - GRID_GAP, 2 * (8 + GRID_GAP) - GRID_GAP
    factor = picture.shape[1] // width

    assert picture.shape == (factor * height, factor * width, 3)
    assert factor * width >= 768
    centres = picture[4 * factor :: (8 + GRID_GAP) * factor, 4 * factor :: (8 + GRID_GAP) * factor, 0]
    assert centres.tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_grid_is_written_as_video_and_as_picture(tmp_path: Path) -> None:
    mp4, png = write_grid(tmp_path / "new" / "folder", [_smooth(3, 8, 8)] * 3, 8)

    assert (mp4.name, png.name) == ("grid.mp4", "grid.png")
    assert _read(mp4)[0].shape[1] == 3
    with Image.open(png) as picture:
        assert picture.format == "PNG"


CAPTIONS = ["a red dog", "", "word " * 200, "一只狗" * 50, "собака \x1b[31m\n🐶 כלב", "x" * 1000, "\ud800"]


@pytest.mark.parametrize("size", [(32, 32), (1, 2), (64, 300)])
def test_captions_stand_under_the_videos_of_a_grid(size: tuple[int, int]) -> None:
    gray = torch.full((3, 2, *size), 100, dtype=torch.uint8)
    laid = captioned_grid([gray] * len(CAPTIONS), CAPTIONS)
    width = (laid.shape[-1] - 2 * GRID_GAP) // 3
    factor = width // size[1]
    height, strip = size[0] * factor, (laid.shape[-2] - 2 * GRID_GAP) // 3 - size[0] * factor

    assert factor == max(1, -(-144 // size[1]))
    for number, caption in enumerate(CAPTIONS):
        top, left = (number // 3) * (height + strip + GRID_GAP), (number % 3) * (width + GRID_GAP)
        tile = laid[..., top : top + height + strip, left : left + width]
        assert (tile[..., :height, :] == 100).all()
        assert (tile[..., height:, :].amax(), tile[..., height:, 0].amin()) == (255, 255)
        assert bool(tile[..., height:, :].amin() < 100) == bool(caption)


def test_film_strips_have_their_captions_beneath(tmp_path: Path) -> None:
    write_film_strips(tmp_path / "plain.png", [_smooth(3, 8, 8)] * 2)
    for num_frames in (1, 3):
        write_film_strips(tmp_path / "grid.png", [_smooth(num_frames, 8, 8)] * 20, CAPTIONS[:2] * 10)
        picture = np.asarray(Image.open(tmp_path / "grid.png"))
        assert picture.shape[1] >= 144
    write_film_strips(tmp_path / "grid.png", [_smooth(3, 8, 8)] * 2, CAPTIONS[:2])
    plain, picture = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "grid.png"))
    height = 8 * plain.shape[1] // (3 * 8 + 2 * GRID_GAP)

    assert (picture[:height] == plain[:height]).all()
    assert (picture[height, 5] == 255).all()
    assert picture[height : height + 20].min() < 100


def test_a_video_says_what_it_is_told_about_itself(tmp_path: Path) -> None:
    told = {"title": "一只狗", "comment": "a" * 100_000}
    write_mp4(tmp_path / "v.mp4", _smooth(2, 16, 16), 8, told)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert told.items() <= container.metadata.items()


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("A red dog, running!", "0007-a-red-dog-running.mp4"),
        ("", "0007.mp4"),
        ("../../etc/passwd", "0007-etc-passwd.mp4"),
        ("一只狗", "0007-一只狗.mp4"),
        ("...", "0007.mp4"),
        ("word " * 40, "0007-" + "-".join(["word"] * 12) + ".mp4"),
    ],
)
def test_files_are_named_by_number_and_caption(caption: str, name: str) -> None:
    assert file_name(7, caption) == name


def test_the_longest_name_fits_any_file_system() -> None:
    assert len(file_name(9999, "🄰" * 200 + "狗" * 200).encode()) <= 255
