"""A folder of videos as a source of clips."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.sources.base import UnusableClip, blocks_of_rank
from vdm.evaluation.sources.video_folder import VideoFolder
from vdm.generation.input_video import InputVideo, read_video
from vdm.generation.video_files import write_mp4

RULE = ClipRule(4)


def write(path: Path, grey: int, num_frames: int = 6, title: str = "", fps: float = 8.0) -> None:
    """Write a video whose frames get brighter by 10 levels each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = torch.arange(num_frames, dtype=torch.uint8) * 10 + grey
    write_mp4(path, levels.view(1, -1, 1, 1).expand(3, num_frames, 32, 32), fps, {"title": title})


def seen(folder: VideoFolder, rule: ClipRule = RULE) -> list[EvaluatedClip | UnusableClip]:
    """Return the clips in the order of their names."""
    clips = [views[rule] for _, views in folder.views([range(len(folder))], [rule])]
    return sorted(clips, key=lambda clip: clip.key)


def test_videos_come_in_order_with_their_captions(tmp_path: Path) -> None:
    write(tmp_path / "b.mp4", 100, title="of the title")
    write(tmp_path / "a" / "x.mp4", 20, title="of the title")
    (tmp_path / "a" / "x.txt").write_text("of the text file\n")
    clips = seen(VideoFolder(tmp_path))
    assert [(one.key, one.caption) for one in clips if isinstance(one, EvaluatedClip)] == [
        ("a/x", "of the text file"),
        ("b", "of the title"),
    ]
    first = clips[0]
    assert isinstance(first, EvaluatedClip)
    assert first.video.shape == (3, 4, 32, 32)
    assert first.fps == 8.0
    levels = first.video.float().mean((0, 2, 3))
    torch.testing.assert_close(levels, torch.tensor([20.0, 30.0, 40.0, 50.0]), atol=2.0, rtol=0)


def test_a_lower_rate_takes_every_other_frame(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 20, num_frames=9, fps=16.0)
    (clip,) = seen(VideoFolder(tmp_path), rule := ClipRule(4, fps=8.0))
    assert isinstance(clip, EvaluatedClip)
    assert clip.fps == rule.fps
    torch.testing.assert_close(
        clip.video.float().mean((0, 2, 3)), torch.tensor([20.0, 40.0, 60.0, 80.0]), atol=2.0, rtol=0
    )


def write_at(path: Path, times_ms: Sequence[int]) -> None:
    """Write a video whose frames are shown at some times and get brighter by 8 levels each."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * number + 20, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_of_a_varying_rate_are_those_nearest_in_time(tmp_path: Path, suffix: str) -> None:
    times = [0, 100, 200, 300, 400, *range(500, 1000, 25)]
    write_at(tmp_path / f"a.{suffix}", times)
    (clip,) = seen(VideoFolder(tmp_path), ClipRule(8, fps=10.0))
    assert isinstance(clip, EvaluatedClip)
    shown = ((clip.video.float().mean((0, 2, 3)) - 20) / 8).round().int().tolist()
    assert [times[number] for number in shown] == [0, 100, 200, 300, 400, 500, 600, 700]


def test_no_more_is_decoded_than_a_rate_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", 20, num_frames=20, fps=16.0)
    decoded: list[int] = []

    def counted(path: Path, **limits: Any) -> InputVideo:
        video = read_video(path, **limits)
        decoded.append(video.frames.shape[1])
        return video

    monkeypatch.setattr("vdm.evaluation.sources.video_folder.read_video", counted)
    for rule in (ClipRule(4, fps=8.0), ClipRule(4, fps=16.0), ClipRule(4, fps=5.0), ClipRule(11), ClipRule(8, fps=8.0)):
        (clip,) = seen(VideoFolder(tmp_path), rule)
        assert isinstance(clip, EvaluatedClip)
        torch.testing.assert_close(clip.video, rule.cut(read_video(tmp_path / "a.mp4").frames, 16.0), rtol=0, atol=0)
    assert decoded == [8, 5, 11, 11, 16]
    (whole,) = seen(VideoFolder(tmp_path), ClipRule(4, start="center"))
    assert isinstance(whole, EvaluatedClip)
    assert decoded[-1] == 20


def test_what_cannot_be_looked_at_is_said_among_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 20, num_frames=3)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    write(tmp_path / "c.mp4", 20)
    short, damaged, good = seen(VideoFolder(tmp_path))
    assert short == UnusableClip("a", "has 3 frames; 4 take 4")
    assert isinstance(damaged, UnusableClip)
    assert damaged.reason.startswith("can't be")
    assert isinstance(good, EvaluatedClip)


def test_the_first_videos_stand_for_all_however_they_are_sorted(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"{number:02d}.mp4", 20, num_frames=4)
    keys = [views[RULE].key for _, views in VideoFolder(tmp_path).views([range(10)], [RULE])]
    assert keys != sorted(keys)
    assert 0 < sum(int(key) < 20 for key in keys) < 10


def test_a_folder_is_put_in_the_order_of_another_by_names(tmp_path: Path) -> None:
    for folder, names in (("videos", "abc"), ("true", "dcba"), ("twice", "abc")):
        for name in names:
            write(tmp_path / folder / f"{name}.mp4", 20)
    write(tmp_path / "twice" / "a.mkv", 20)
    videos = VideoFolder(tmp_path / "videos")

    def keys(source: VideoFolder) -> list[str]:
        return [views[RULE].key for _, views in source.views([range(len(source))], [RULE])]

    assert keys(VideoFolder(tmp_path / "true").like(videos)) == keys(videos)
    with pytest.raises(ValueError, match=r"^.*videos: has no video named d, to compare that of .*true with$"):
        videos.like(VideoFolder(tmp_path / "true"))
    with pytest.raises(ValueError, match=r"^.*twice: has two videos named a$"):
        VideoFolder(tmp_path / "twice").like(videos)


def test_grids_of_samples_are_no_videos_of_the_folder(tmp_path: Path) -> None:
    for name in ("0000-a.mp4", "grid.mp4", "grid-0004.mp4", "gridlock.mp4"):
        write(tmp_path / name, 20)
    assert len(VideoFolder(tmp_path)) == 4
    (tmp_path / "settings.json").write_text("{}")
    assert [one.key for one in seen(VideoFolder(tmp_path))] == ["0000-a", "gridlock"]


def test_identity_is_that_of_names_and_contents(tmp_path: Path) -> None:
    for folder in ("one", "same", "renamed", "changed"):
        write(tmp_path / folder / ("a.mp4" if folder != "renamed" else "b.mp4"), 20 if folder != "changed" else 30)
    one, same, renamed, changed = (
        VideoFolder(tmp_path / name).identity for name in ("one", "same", "renamed", "changed")
    )
    assert one == same
    assert len({one, renamed, changed}) == 3


def test_nothing_to_look_at_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^.*missing: no such folder$"):
        VideoFolder(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"^.*: no videos in it$"):
        VideoFolder(tmp_path)


@pytest.mark.parametrize(("num_videos", "block", "world"), [(10, 3, 2), (1, 4, 3), (7, 7, 2), (12, 2, 5)])
def test_processes_share_all_videos_and_take_equal_numbers_of_blocks(num_videos: int, block: int, world: int) -> None:
    shares = [blocks_of_rank(num_videos, block, rank, world) for rank in range(world)]
    assert sorted(number for share in shares for one in share for number in one) == list(range(num_videos))
    assert len({len(share) for share in shares}) == 1
    assert all(one.start % block == 0 and len(one) <= block for share in shares for one in share)
