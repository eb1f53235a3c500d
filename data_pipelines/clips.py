"""Cutting a video into clips of a fixed frame rate, by the times at which frames are shown."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from data_pipelines.decoding import TimedFrame, VideoReader, picture, shown_size
from data_pipelines.settings import ClipSettings
from data_pipelines.sources import Clip, SourceError, UnavailableError

EARLY_SECONDS = 0.001
"""A frame may be asked for so much before it is shown: containers round times to a millisecond."""

Picture = UInt8[np.ndarray, "h w c"]


@dataclass
class OpenClip:
    """A clip whose end has not been reached."""

    start: float
    pictures: list[Picture] = field(default_factory=list)
    num_source_frames: int = 0


@dataclass
class ClipCutter:
    """Fills clips with what is shown at their sampling times ``start + i / fps``.

    Clips start every ``stride_seconds`` from the first frame after the start or a break, and never span a break.
    """

    settings: ClipSettings
    origin: float = 0.0
    """Where the first clip since the last break starts."""
    num_opened: int = 0
    open_clips: list[OpenClip] = field(default_factory=list)

    def restart(self, origin: float) -> None:
        """Drop unfinished clips and begin anew at ``origin``."""
        self.origin, self.num_opened, self.open_clips = origin, 0, []

    def show(self, render: Callable[[], Picture], until: float) -> Iterator[OpenClip]:
        """Fill in a picture, made by ``render`` if needed, that is shown from now ``until`` then; yield full clips."""
        until -= EARLY_SECONDS
        while (start := self.origin + self.num_opened * self.settings.stride_seconds) < until:
            self.open_clips.append(OpenClip(start))
            self.num_opened += 1
        rendered: Picture | None = None
        for clip in self.open_clips:
            num_before = len(clip.pictures)
            while (n := len(clip.pictures)) < self.settings.num_frames and clip.start + n / self.settings.fps < until:
                rendered = render() if rendered is None else rendered
                clip.pictures.append(rendered)
            clip.num_source_frames += len(clip.pictures) > num_before
        full = [clip for clip in self.open_clips if len(clip.pictures) == self.settings.num_frames]
        self.open_clips = [clip for clip in self.open_clips if len(clip.pictures) < self.settings.num_frames]
        yield from full


def cut(
    frames: Iterable[TimedFrame], settings: ClipSettings, render: Callable[[av.VideoFrame], Picture]
) -> Iterator[OpenClip]:
    """Yield the full clips of a video, stills apart: one source frame seen all the time is no motion to learn from."""
    cutter = ClipCutter(settings)
    previous: TimedFrame | None = None

    def show_previous(until: float) -> Iterator[OpenClip]:
        if previous is not None:
            shown = previous.frame
            for clip in cutter.show(lambda: render(shown), until):
                if clip.num_source_frames >= min(2, settings.num_frames):
                    yield clip

    for frame in frames:
        if previous is not None and frame.after_break:
            yield from show_previous(previous.start + previous.duration)
            cutter.restart(frame.start)
        else:
            yield from show_previous(frame.start)
        previous = frame
    if previous is not None:
        yield from show_previous(previous.start + previous.duration)


@dataclass(frozen=True)
class VideoFile:
    """A video as a source of clips."""

    path: Path
    name: str
    fingerprint: str
    settings: ClipSettings

    def clips(self) -> Iterator[Clip]:
        """Yield the clips in order; see ``Source.clips``."""
        try:
            if self.path.stat().st_size == 0:
                raise SourceError("is empty (0 bytes)")
            with av.open(self.path, metadata_errors="ignore") as container:
                yield from self._clips(VideoReader(container))
        except SourceError:
            raise
        except OSError as error:
            raise UnavailableError(f"can't be read: {error.strerror or error}") from None
        except FFmpegError as error:
            raise SourceError(f"can't be read: {error.strerror}") from None
        except Exception as error:  # whatever a strange file makes the decoder do, the others go on
            raise SourceError(f"can't be read: {type(error).__name__}: {error}") from None

    def _clips(self, reader: VideoReader) -> Iterator[Clip]:
        aspect, num_clips = reader.pixel_aspect(), 0
        source: dict[str, Any] = {"source": self.name, "source_fps": reader.fps}

        def render(frame: av.VideoFrame) -> Picture:
            source["source_height"], source["source_width"] = shown_size(frame, aspect)
            return picture(frame, aspect, self.settings.height, self.settings.width)

        for clip in cut(reader.frames(), self.settings, render):
            num_clips += 1
            yield Clip(np.stack(clip.pictures), {**source, "source_start_seconds": clip.start})
        if reason := _fault(reader, self.settings, num_clips):
            raise SourceError(reason)


def _fault(reader: VideoReader, settings: ClipSettings, num_clips: int) -> str | None:
    """Say in one line what was wrong with a video that has been read to its end."""
    kept = f"clips kept: {num_clips}"
    declared = reader.declared_seconds()
    if reader.num_frames == 0:
        return "no frame can be decoded"
    if reader.num_errors:
        return f"is damaged: packets that can't be decoded: {reader.num_errors}, in {reader.end:.2f} s; {kept}"
    if declared and reader.end < declared - max(1.0, 0.05 * declared):
        return f"is cut short: lasts {reader.end:.2f} s of the {declared:.2f} s it declares; {kept}"
    if reader.num_frames == 1 and settings.num_frames > 1:
        return "has a single frame"
    if num_clips == 0 and reader.end < settings.seconds:
        return f"is too short: lasts {reader.end:.2f} s, a clip {settings.seconds:.2f} s"
    if num_clips == 0:
        return "has no clip of moving pictures without a break"
    return None
