"""Stage cut: the shots of each video, and the clips that lie within one shot each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_pipelines.clips import VideoFile, cut, fault_of
from data_pipelines.decoding import Timed, VideoReader, shown_size, thumbnail
from data_pipelines.manifest import ClipRow
from data_pipelines.shots.base import ShotDetector
from data_pipelines.sources import SourceError, UnavailableError, source_key
from data_pipelines.stages.work_items import FileResult, WorkFolder, digest, run_items
from vdm.config import build

_NO_PICTURE = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True)
class CutTask:
    """A file to cut."""

    video: VideoFile
    detector: str
    """Configuration of the shot detector, as JSON."""
    margin_seconds: float
    """Duration that is left out at both sides of a cut."""


def cut_clips(
    videos: Sequence[VideoFile], detector: Mapping[str, Any], margin_seconds: float, folder: WorkFolder
) -> dict[str, FileResult[ClipRow]]:
    """Find the clips of each file; return the results by name of the file."""
    node = json.dumps(detector, sort_keys=True)
    tasks = {video.name: CutTask(video, node, margin_seconds) for video in videos}
    digests = {
        video.name: digest(
            *(video.fingerprint, node, margin_seconds),
            *(video.settings.num_frames, video.settings.fps, video.settings.stride_seconds),
        )
        for video in videos
    }
    return run_items("cut", tasks, digests, cut_file, ClipRow, folder)


def cut_file(task: CutTask) -> FileResult[ClipRow]:
    """Decode a file once, find its shots, and return the clips that fit into them."""
    try:
        return _cut_file(task, load_detector(task.detector))
    except UnavailableError:
        raise
    except SourceError as error:
        return FileResult((), str(error))


def _cut_file(task: CutTask, detector: ShotDetector) -> FileResult[ClipRow]:
    times: list[Timed[None]] = []
    size = 0, 0

    with task.video.reader() as reader:

        def pictures() -> Iterator[UInt8[np.ndarray, "h w c"]]:
            nonlocal size
            for frame in reader.frames():
                times.append(Timed(None, frame.start, frame.duration, frame.after_break))
                size = shown_size(frame.frame, reader.pixel_aspect())
                yield thumbnail(frame.frame, *detector.size)

        shots = detector.shots(pictures(), reader.fps)
        rows = tuple(_rows(task, reader, times, shots, size))
        return FileResult(rows, fault_of(reader, task.video.settings, len(rows)))


@lru_cache(maxsize=1)
def load_detector(node: str) -> ShotDetector:
    """Build the shot detector, once in each process."""
    return build(json.loads(node), "shots")


def _rows(
    task: CutTask, reader: VideoReader, times: Sequence[Timed[None]], shots: Sequence[range], size: tuple[int, int]
) -> Iterator[ClipRow]:
    key, last_start = source_key(task.video.name), -1.0
    for number, shot in enumerate(shots):
        frames = _within(times, shot, task.margin_seconds)
        for clip in cut(frames, task.video.settings, lambda _: _NO_PICTURE):
            if clip.start <= last_start:  # the clock was set back, so the time is ambiguous
                continue
            last_start = clip.start
            yield ClipRow(
                key=f"{key}-{round(1000 * clip.start):09d}",
                source=task.video.name,
                start_seconds=clip.start,
                shot=number,
                shot_seconds=frames[-1].start + frames[-1].duration - frames[0].start,
                source_fps=reader.fps,
                source_height=size[0],
                source_width=size[1],
            )


def _within(times: Sequence[Timed[None]], shot: range, margin_seconds: float) -> list[Timed[None]]:
    """Return the frames of a shot without the margins at its cuts; the ends of the video are no cuts."""
    frames = list(times[shot.start : shot.stop])
    start = frames[0].start + (margin_seconds if shot.start > 0 else 0)
    end = frames[-1].start + frames[-1].duration - (margin_seconds if shot.stop < len(times) else 0)
    return [frame for frame in frames if frame.start >= start and frame.start + frame.duration <= end + 1e-6]
