"""Videos whose containers say nothing, or the wrong thing, of when frames are shown."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests.data_pipelines.videos import CLIP, gray_frames, gray_of, video_file, write_video, write_with_sound


@pytest.mark.parametrize("name", ["a.avi", "a.wmv"])
def test_frames_of_containers_without_times_of_showing_come_in_order(tmp_path: Path, name: str) -> None:
    times_ms = [40 * round(number * 25 / 16) for number in range(32)]
    path = write_video(
        tmp_path / name,
        gray_frames(32),
        times_ms,
        fps=25,
        codec="libx264",
        pix_fmt="yuv444p",
        options={"crf": "1", "bf": "2", "b-adapt": "0"},
    )

    with video_file(path).reader() as reader:
        frames = [(gray_of(frame.frame.to_ndarray(format="rgb24")[None])[0], frame.start) for frame in reader.frames()]

    assert [number for number, _ in frames] == [*range(32)]
    # The time of decoding of a frame that others refer to is rounded to a neighbour's.
    assert [start for _, start in frames] == pytest.approx([time / 1000 for time in times_ms], abs=0.0401)


def test_times_that_step_back_again_and_again_are_given_up(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "bf": "2", "b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv444p"
        frames = [av.VideoFrame.from_ndarray(pixels, format="rgb24") for pixels in gray_frames(48)]
        for packet in (packet for frame in [*frames, None] for packet in stream.encode(frame)):
            packet.pts = packet.dts  # as programs do that know nothing of reordering
            container.mux(packet)

    with video_file(tmp_path / "a.mkv").reader() as reader:
        frames = [(gray_of(frame.frame.to_ndarray(format="rgb24")[None])[0], frame.start) for frame in reader.frames()]

    numbers, starts = zip(*frames[8:], strict=True)
    assert numbers == tuple(range(48))[-len(numbers) :]
    assert len(numbers) >= 36
    assert [b - a for a, b in pairwise(starts)] == pytest.approx([0.04] * (len(starts) - 1), abs=0.0011)


def test_rate_of_a_bare_stream_is_its_own(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.h264", gray_frames(24), fps=30, codec="libx264", pix_fmt="yuv444p", options={"crf": "1"}
    )

    clips = list(video_file(path, replace(CLIP, fps=15, stride_seconds=0.2)).clips())

    assert clips[0].metadata["source_fps"] == 30
    assert [gray_of(clip.video) for clip in clips[:2]] == [[0, 2, 4, 6], [6, 8, 10, 12]]


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_rate_of_a_frame_a_millisecond_is_that_of_the_frames(tmp_path: Path, name: str) -> None:
    times_ms = [round(1000 * number / 30) for number in range(40)]
    path = write_video(tmp_path / name, gray_frames(40), times_ms, fps=1000, codec="libvpx-vp9", pix_fmt="yuv420p")

    with video_file(path).reader() as reader:
        assert reader.fps == pytest.approx(30, rel=0.01)
        starts = [frame.start for frame in reader.frames()]
    assert starts == pytest.approx([time / 1000 for time in times_ms])
    assert reader.end == pytest.approx(40 / 30, abs=0.01)


def test_rate_of_a_thousand_frames_a_second_is_believed_where_it_is_true(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", gray_frames(20), [*range(20)], fps=1000)

    with video_file(path).reader() as reader:
        assert reader.fps == 1000


def test_sound_that_is_longer_than_the_video_is_no_fault(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "a.mkv", gray_frames(16), sound_seconds=9)

    assert len(list(video_file(path).clips())) == 4


def test_video_that_begins_late_is_no_fault(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "a.mkv", gray_frames(16), sound_seconds=7, start_seconds=5)

    assert [clip.metadata["source_start_seconds"] for clip in video_file(path).clips()] == [0, 0.5, 1, 1.5]


def test_video_with_sound_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "a.mkv", gray_frames(50), sound_seconds=6)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ValueError, match=r"is (cut short|damaged)"):
        list(video_file(path).clips())
