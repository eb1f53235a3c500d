import bisect
import dataclasses
from pathlib import Path

import av
import pytest

from data_pipelines.clips import VideoFile
from data_pipelines.settings import ClipSettings
from data_pipelines.sources import Clip, SourceError, UnavailableError
from tests.data_pipelines.videos import (
    CLIP,
    gray_frames,
    gray_of,
    set_display_matrix,
    video_file,
    write_h264,
    write_sound,
    write_video,
)


def _read(source: VideoFile) -> tuple[list[Clip], str | None]:
    clips: list[Clip] = []
    try:
        for clip in source.clips():
            clips.append(clip)
    except SourceError as error:
        return clips, str(error)
    return clips, None


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_video_of_the_same_rate_is_taken_frame_by_frame(tmp_path: Path, name: str) -> None:
    clips, fault = _read(video_file(write_video(tmp_path / name, gray_frames(12))))

    assert fault is None
    assert [gray_of(clip.video) for clip in clips] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.ts", "mpeg2video", "yuv420p"),
    ],
)
def test_containers_and_codecs(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = write_video(tmp_path / name, gray_frames(50), fps=25, codec=codec, pix_fmt=pix_fmt)

    clips, fault = _read(video_file(path))

    assert fault is None
    assert len(clips) == 4
    assert all(clip.video.shape == (4, 16, 16, 3) for clip in clips)


@pytest.mark.parametrize("fps", [3.0, 8.0, 10.0, 24.0])
def test_variable_frame_rate_shows_what_is_on_screen_at_each_time(tmp_path: Path, fps: float) -> None:
    times_ms = [0, 40, 300, 333, 700, 1001, 1010, 1500, 1980, 2000]
    settings = dataclasses.replace(CLIP, fps=fps, num_frames=5, stride_seconds=0.25)
    path = write_video(tmp_path / "a.mkv", gray_frames(len(times_ms)), times_ms)

    clips, _ = _read(video_file(path, settings))

    assert clips
    for clip in clips:
        times = [clip.metadata["source_start_seconds"] + n / fps for n in range(5)]
        assert gray_of(clip.video) == [bisect.bisect_right(times_ms, 1000 * time + 1) - 1 for time in times]


@pytest.mark.parametrize("stride_seconds", [0.25, 0.5, 1.0, 0.3])
def test_clips_start_every_stride_as_long_as_the_film_lasts(tmp_path: Path, stride_seconds: float) -> None:
    settings = dataclasses.replace(CLIP, stride_seconds=stride_seconds)

    clips, _ = _read(video_file(write_video(tmp_path / "a.mkv", gray_frames(24)), settings))

    last_sample = 3 / 8
    expected = [n * stride_seconds for n in range(20) if n * stride_seconds + last_sample < 3 - 0.001]
    assert [clip.metadata["source_start_seconds"] for clip in clips] == pytest.approx(expected)


def test_clips_never_span_a_jump_in_time(tmp_path: Path) -> None:
    times_ms = [125 * n for n in range(6)] + [60_000 + 125 * n for n in range(6)]

    clips, _ = _read(video_file(write_video(tmp_path / "a.mkv", gray_frames(12), times_ms)))

    assert [gray_of(clip.video) for clip in clips] == [[0, 1, 2, 3], [6, 7, 8, 9]]


def test_stills_are_no_clips(tmp_path: Path) -> None:
    times_ms = [0, 125, 250, 375, 3000, 3125, 3250, 3375]

    clips, fault = _read(video_file(write_video(tmp_path / "a.mkv", gray_frames(8), times_ms)))

    assert fault is None
    assert all(len(set(gray_of(clip.video))) > 1 for clip in clips)
    assert len(clips) == 2


def test_metadata_tells_where_a_clip_comes_from(tmp_path: Path) -> None:
    path = write_h264(tmp_path / "a.mp4", gray_frames(8, height=32, width=48))
    set_display_matrix(path, 0, 1, -1, 0)

    clips, _ = _read(video_file(path))

    assert clips[1].metadata == {
        "source": "a.mp4",
        "source_start_seconds": 0.5,
        "source_fps": 8.0,
        "source_height": 48,
        "source_width": 32,
    }


def test_metadata_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", gray_frames(8), title="Zoe and Chloe")
    path.write_bytes(path.read_bytes().replace(b"Zoe and Chloe", b"Zo\xeb and Chlo\xeb"))

    clips, fault = _read(video_file(path))

    assert (len(clips), fault) == (2, None)


@pytest.mark.parametrize("name", ["12:30.mkv", "http:b.mkv", "concat:a|b.mkv", "a%03d.mkv"])
def test_names_that_look_like_addresses_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", gray_frames(8)).rename(name)

    clips, fault = _read(video_file(Path(name)))

    assert (len(clips), fault) == (2, None)


def test_one_frame_clips_are_possible(tmp_path: Path) -> None:
    settings = ClipSettings(num_frames=1, fps=1, height=16, width=16, stride_seconds=1)

    clips, fault = _read(video_file(write_video(tmp_path / "a.mkv", gray_frames(1)), settings))

    assert (len(clips), fault) == (1, None)


def test_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()

    assert _read(video_file(tmp_path / "a.mp4")) == ([], "is empty (0 bytes)")


def test_sound_alone_is_named(tmp_path: Path) -> None:
    assert _read(video_file(write_sound(tmp_path / "a.mp4"))) == ([], "has no video stream, sound only")


def test_one_frame_is_named(tmp_path: Path) -> None:
    assert _read(video_file(write_video(tmp_path / "a.mkv", gray_frames(1)))) == ([], "has a single frame")


def test_too_short_a_video_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", gray_frames(3))

    assert _read(video_file(path)) == ([], "is too short: lasts 0.38 s, a clip 0.50 s")


def test_noise_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\x17" * 4096)

    clips, fault = _read(video_file(path))

    assert (clips, fault) == ([], "can't be read: Invalid data found when processing input")


def test_vanished_file_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file"):
        list(video_file(tmp_path / "a.mp4").clips())


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_of_a_truncated_video_the_intact_beginning_is_kept(tmp_path: Path, share: float) -> None:
    whole = write_h264(tmp_path / "a.mp4", gray_frames(48))
    data = whole.read_bytes()
    media = data.index(b"mdat")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: media + int(share * (len(data) - media))])

    clips, fault = _read(video_file(cut))

    assert fault is not None
    assert ("is damaged" in fault) or ("is cut short" in fault)
    assert 0 < len(clips) < 12
    assert [gray_of(clip.video) for clip in clips] == [[4 * n + i for i in range(4)] for n in range(len(clips))]


def test_truncated_video_whose_index_is_lost_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", gray_frames(48), codec="libx264", pix_fmt="yuv444p")
    path.write_bytes(path.read_bytes()[:-500])

    clips, fault = _read(video_file(path))

    assert (clips, str(fault)[:15]) == ([], "can't be read: ")


def test_after_damage_clips_start_again_at_a_key_frame(tmp_path: Path) -> None:
    path = write_h264(tmp_path / "a.mp4", gray_frames(48), bframes="0")
    data = bytearray(path.read_bytes())
    packet = _packet_place(path, 10)
    data[packet + 4 : packet + 30] = b"\xff" * 26
    path.write_bytes(data)

    clips, fault = _read(video_file(path))

    assert fault is not None
    assert "is damaged" in fault
    assert [gray_of(clip.video) for clip in clips] == [[n, n + 1, n + 2, n + 3] for n in (0, 4, *range(16, 48, 4))]


def _packet_place(path: Path, number: int) -> int:
    """Return the first byte of a packet in the file."""
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place = packets[number].pos
    assert place is not None
    return place
