"""Videos and pictures that sampling, making shards and training must see alike."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.decoding import thumbnail
from data_pipelines.index import IndexSettings, index_folder
from data_pipelines.verify import VerifySettings, verify
from tests.data_pipelines.tars import write_tar
from tests.data_pipelines.videos import gray_frames, gray_of, quadrants, video_file, write_video
from vdm.data.decoding import UndecodableClipError, decode_clip, decode_picture
from vdm.data.frames import Orientation, film_of, has_alpha, opaque, orientation
from vdm.data.index import read_index
from vdm.data.sidecars import read_samples
from vdm.generation.input_video import read_video
from vdm.generation.requests import load_image

X264 = {"codec": "libx264", "pix_fmt": "yuv444p", "options": {"crf": "1"}}


def trained_on(path: Path) -> np.ndarray:
    """Return what training decodes of a video or picture in a tar, indexed and verified: t h w c."""
    folder = path.parent / "tars"
    folder.mkdir()
    write_tar(folder / "a.tar", [(f"a{path.suffix}", path.read_bytes())])
    assert index_folder(IndexSettings(input=folder, num_workers=0)) == 0
    assert verify(VerifySettings(input=folder, num_workers=0)) == 0
    (shard,) = read_index(folder).splits["train"]
    (sample,) = read_samples(folder, shard)
    decode = decode_clip if path.suffix == ".mp4" else decode_picture
    return decode(path.read_bytes(), sample.shape).permute(1, 2, 3, 0).numpy()


def built_from(path: Path) -> np.ndarray:
    return next(iter(video_file(path).clips())).video


def sampled_from(path: Path) -> np.ndarray:
    return read_video(path).frames.permute(1, 2, 3, 0).numpy()


READERS = [trained_on, built_from, sampled_from]
Reader = Callable[[Path], np.ndarray]


def write_with_cover(path: Path) -> Path:
    """Write an mp4 whose first stream is a cover of another size."""
    film = write_video(path.with_name("film.mp4"), gray_frames(8), **X264)
    with av.open(path, "w") as container, av.open(film) as source:
        cover = container.add_stream("mjpeg", rate=1, options={})
        cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream_from_template(source.streams.video[0])
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 250, np.uint8), format="rgb24")
        container.mux(cover.encode(picture) + cover.encode())
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    # As other programs do: what is said about the file, with the cover, before its tracks.
    data = path.read_bytes()
    start = data.index(b"moov") + 4
    boxes, place = [], start
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        boxes.append(data[place : place + size])
        place += size
    boxes.sort(key=lambda box: box[4:8] != b"udta")
    path.write_bytes(data[:start] + b"".join(boxes))
    return path


@pytest.mark.parametrize("read", READERS)
def test_a_cover_is_not_the_film(tmp_path: Path, read: Reader) -> None:
    path = write_with_cover(tmp_path / "a.mp4")
    with av.open(path) as container:
        assert len(container.streams.video) == 2
        assert film_of(container) is container.streams.video[1]

    assert gray_of(read(path))[:4] == [0, 1, 2, 3]


def test_of_two_films_the_larger_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        streams = [container.add_stream("ffv1", rate=8) for _ in range(2)]
        for stream, side in zip(streams, (16, 32), strict=True):
            stream.height, stream.width, stream.pix_fmt = side, side, "bgr0"
        for number in range(8):
            pictures = np.full((16, 16, 3), 200, np.uint8), gray_frames(8, 32, 32)[number]
            for stream, pixels in zip(streams, pictures, strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())

    assert gray_of(built_from(path)) == [0, 1, 2, 3]
    assert sampled_from(path).shape == (8, 32, 32, 3)


@pytest.mark.parametrize("box", [b"pasp", b"free"])
def test_wide_pixels_are_stretched_in_training_too(tmp_path: Path, box: bytes) -> None:
    """The second file says so in its bitstream alone."""
    coded = quadrants(32, 32)
    path = write_video(tmp_path / "a.mp4", [coded] * 2, pixel_aspect=Fraction(2), **X264)
    path.write_bytes(path.read_bytes().replace(b"pasp", box))

    trained = trained_on(path)

    assert trained.shape == (2, 32, 64, 3)
    assert np.abs(trained[:, ::31, 4::55].astype(int) - quadrants(32, 64)[None, ::31, 4::55]).max() < 12


def test_a_set_indexed_by_coded_sizes_is_read_as_it_was(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [quadrants(32, 32)] * 2, pixel_aspect=Fraction(2), **X264)

    assert decode_clip(path.read_bytes(), (2, 32, 32)).shape == (3, 2, 32, 32)
    with pytest.raises(UndecodableClipError, match="a frame has 32x64 pixels where the index records 32x48"):
        decode_clip(path.read_bytes(), (2, 32, 48))


def write_transparent(path: Path) -> Path:
    """Write two frames of magenta: without, with half and with all of its alpha."""
    pixels = np.zeros((16, 48, 4), np.uint8)
    pixels[..., 0] = pixels[..., 2] = 255
    pixels[:, 16:32, 3], pixels[:, 32:, 3] = 128, 255
    with av.open(path, "w") as container:
        stream = container.add_stream("png", rate=8)
        stream.height, stream.width, stream.pix_fmt = 16, 48, "rgba"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    return path


SEEN = [(255, 255, 255), (255, 127, 255), (255, 0, 255)]
"""Magenta m of share a over white is a m + (1 - a) 255: in its green a share of 128 / 255 leaves 127."""


def test_alpha_is_seen_on_white_by_all(tmp_path: Path) -> None:
    film = write_transparent(tmp_path / "a.mov")
    with av.open(film) as container:
        frame = next(container.decode(video=0))
        assert thumbnail(frame, 16, 48)[8, [4, 24, 44]].tolist() == [list(colour) for colour in SEEN]
        still = tmp_path / "a.png"
        Image.fromarray(frame.to_ndarray(format="rgba")).save(still)

    from_film, from_training = sampled_from(film)[0], trained_on(still)[0]
    from_request = load_image(still, 16, 48)[0].permute(1, 2, 0).numpy()

    for seen in (from_film, from_training, from_request):
        assert seen[8, [4, 24, 44]].tolist() == [list(colour) for colour in SEEN]
    assert built_from(film)[0, 8, 8].tolist() == list(SEEN[1])  # the middle is cut out


@pytest.mark.parametrize("pixel_format", ["rgba", "bgra", "yuva420p", "ya8", "pal8"])
def test_frames_without_transparent_parts_stay_as_they_are(pixel_format: str) -> None:
    assert has_alpha(pixel_format)
    if pixel_format != "pal8":  # FFmpeg makes no palettes
        frame = av.VideoFrame.from_ndarray(quadrants(16, 16), format="rgb24").reformat(format=pixel_format)
        assert opaque(frame) is frame


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (16, 1))
    path = tmp_path / "a.png"
    Image.fromarray(ramp).save(path)

    expected = ramp[..., None].repeat(3, -1).astype(np.int64) * 255 // 65535

    np.testing.assert_array_equal(trained_on(path)[0], expected)


def test_side_data_that_pyav_has_no_name_for_does_not_hide_the_display_matrix() -> None:
    """FFmpeg hands the EXIF data of JPEG frames on as a kind of its own."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(quadrants(16, 32)).save(buffer, "JPEG", exif=exif)
    with av.open(io.BytesIO(buffer.getvalue()), format="jpeg_pipe") as container:
        frame = next(container.decode(video=0))

    assert orientation(frame) == Orientation(transpose=True, flip_columns=True)


def test_large_videos_without_a_tag_have_the_colours_of_high_definition(tmp_path: Path) -> None:
    colour = (200, 30, 60)
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 720, 64, "yuv444p"
        frame = av.VideoFrame.from_ndarray(np.full((720, 64, 3), colour, np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709")
        frame.colorspace = 2
        container.mux(stream.encode(frame) + stream.encode())

    assert np.abs(trained_on(tmp_path / "a.mp4").astype(int) - colour).max() <= 4


def write_interlaced(path: Path) -> Path:
    """Write a bar that moves by two columns a field, the upper field first."""
    field = np.zeros((32, 64, 3), np.uint8)
    field[:, :8] = 255
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1", "x264-params": "tff=1"})
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv444p"
        for number in range(8):
            pixels = np.roll(field, 4 * number, 1)
            pixels[1::2] = np.roll(field, 4 * number + 2, 1)[1::2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_interlaced_frames_are_made_whole(tmp_path: Path) -> None:
    """A bar's edge is at one column in all rows; as it is coded, at another in every second row."""
    path = write_interlaced(tmp_path / "a.mp4")
    with av.open(path) as container:
        coded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with video_file(path).reader() as reader:
        frames = list(reader.frames())
        assert [frame.start for frame in frames] == pytest.approx([number / 8 for number in range(8)])
        made = [frame.frame.to_ndarray(format="rgb24") for frame in frames]

    for pictures in (made[1:-1], list(sampled_from(path)[1:-1])):
        assert len(pictures) == 6
        for picture, combed in zip(pictures, coded[1:-1], strict=True):
            assert _combing(picture) < 0.1 * _combing(combed)


def test_interlaced_videos_of_others_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "a.tar", [("a.mp4", write_interlaced(tmp_path / "a.mp4").read_bytes())])
    with pytest.raises(ValueError, match="none of its 1 tars can be used"):
        index_folder(IndexSettings(input=tmp_path, num_workers=0))
    assert "a.tar: a: its video is interlaced, for players to undo; deinterlace it" in capsys.readouterr().err


def _combing(picture: np.ndarray) -> float:
    rows = picture[4:-4].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())
