"""Cutting a video into clips of a fixed frame rate, by the presentation times of its frames."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from data_pipelines.decoding import Frame, Timed, VideoReader, picture, shown_size
from data_pipelines.settings import HDR, ClipSettings
from data_pipelines.sources import Clip, SourceError, UnavailableError, clip_key
from vdm.data.containers import TooLargeError, open_video
from vdm.data.hdr_frames import UnreadColorsError
from vdm.data.mp4_tables import ImplausibleHeaderError
from vdm.regular_files import UnfitFileError

EARLY_SECONDS = 0.001
"""Tolerance: a frame counts as shown so much before its time, since containers round times to a millisecond."""

Picture = UInt8[np.ndarray, "h w c"]


@dataclass
class OpenClip:
    """A clip that is not full yet."""

    start: float
    pictures: list[Picture] = field(default_factory=list)
    num_source_frames: int = 0


@dataclass
class ClipCutter:
    """Fills clips with the pictures shown at their sampling times ``start + i / fps``.

    Clips start every ``stride_seconds``, counted from the first frame of the video or after a break; or at ``starts``.
    A clip never spans a break.
    """

    settings: ClipSettings
    starts: Sequence[float] | None = None
    """Start times of the clips in seconds, in order; None for one every stride."""
    origin: float = 0.0
    """Start time of the first clip since the last break."""
    num_opened: int = 0
    open_clips: list[OpenClip] = field(default_factory=list)

    def restart(self, origin: float) -> None:
        """Drop the clips that are not full, and continue at ``origin``."""
        self.open_clips = []
        if self.starts is None:
            self.origin, self.num_opened = origin, 0

    def next_start(self) -> float:
        """Return the start time of the next clip; infinity if there is none."""
        if self.starts is None:
            return self.origin + self.num_opened * self.settings.stride_seconds
        return self.starts[self.num_opened] if self.num_opened < len(self.starts) else math.inf

    def show(self, render: Callable[[], Picture], until: float) -> Iterator[OpenClip]:
        """Add a picture that is shown until a time; yield the clips that are full.

        Args:
            render: Makes the picture; called only if a clip needs it.
            until: When the picture is replaced by the next one, in seconds.
        """
        until -= EARLY_SECONDS
        while (start := self.next_start()) < until:
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
    frames: Iterable[Timed[Frame]],
    settings: ClipSettings,
    render: Callable[[Frame], Picture],
    starts: Sequence[float] | None = None,
) -> Iterator[OpenClip]:
    """Yield the full clips of a video, except stills: a clip of one repeated frame has no motion to learn from.

    Args:
        frames: In presentation order.
        settings: Shape, rate and stride of the clips.
        render: Makes a picture of a frame; called only for frames that a clip contains.
        starts: Start times of the clips, in order; None for one every stride. No frame is read after the last clip.
    """
    cutter = ClipCutter(settings, starts)
    previous: Timed[Frame] | None = None

    def show_previous(until: float) -> Iterator[OpenClip]:
        if previous is not None:
            shown = previous.frame
            for clip in cutter.show(lambda: render(shown), until):
                if clip.num_source_frames >= min(2, settings.num_frames):
                    yield clip

    for frame in frames:
        if previous is None:
            cutter.restart(frame.start)
        elif frame.after_break:
            yield from show_previous(previous.start + previous.duration)
            cutter.restart(frame.start)
        else:
            yield from show_previous(frame.start)
        previous = frame
        if cutter.next_start() == math.inf and not cutter.open_clips:
            return
    if previous is not None:
        yield from show_previous(previous.start + previous.duration)


Render = Callable[[av.VideoFrame, float], Picture]
"""Makes a picture from a frame and the aspect ratio of its pixels, width over height."""


@dataclass(frozen=True)
class ChosenClip:
    """A clip whose start is known before its video is decoded."""

    key: str
    start_seconds: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of its ``KEY.json``."""


@dataclass(frozen=True)
class VideoFile:
    """A video as a source of clips."""

    path: Path
    name: str
    fingerprint: str
    settings: ClipSettings
    hdr: HDR = "map"
    chosen: tuple[ChosenClip, ...] | None = None
    """Clips to read, in the order of their starts; None for all clips, one every stride."""

    def clips(self) -> Iterator[Clip]:
        """Yield the clips in order; see ``Source.clips``."""
        height, width = self.settings.height, self.settings.width
        return self.clips_seen(lambda frame, aspect: picture(frame, aspect, height, width))

    def clips_seen(self, render: Render) -> Iterator[Clip]:
        """Yield the clips in order, with pictures made by ``render``; see ``Source.clips``."""
        with self.reader() as reader:
            yield from self._clips(reader, render)

    @contextmanager
    def reader(self) -> Iterator[VideoReader]:
        """Open the video; any error, here or while the caller reads it, becomes one of these two.

        Raises:
            SourceError: If the file is at fault.
            UnavailableError: If the storage or the machine is: the file may be read another time.
        """
        try:
            if self.path.is_file() and self.path.stat().st_size == 0:
                raise SourceError("is empty (0 bytes)")
            with open_video(self.path) as container:
                yield VideoReader(container, self.hdr)
        except SourceError:
            raise
        except UnfitFileError as error:
            raise SourceError(f"{error.strerror}") from None
        except (ImplausibleHeaderError, TooLargeError, UnreadColorsError) as error:
            raise SourceError(f"can't be used: {error}") from None
        except OSError as error:
            raise UnavailableError(f"can't be read: {error.strerror or error}") from None
        except FFmpegError as error:
            raise SourceError(f"can't be read: {error.strerror}") from None
        except (MemoryError, RuntimeError) as error:  # of torch too: the machine is at fault, not the file
            raise UnavailableError(f"can't be read now: {type(error).__name__}: {error}") from None
        except Exception as error:  # a malformed file may raise anything; the other files go on
            raise SourceError(f"can't be read: {type(error).__name__}: {error}") from None

    def _clips(self, reader: VideoReader, render: Render) -> Iterator[Clip]:
        aspect, num_clips = reader.pixel_aspect(), 0
        source: dict[str, Any] = {"source": self.name, "source_fps": reader.fps}

        def seen(frame: av.VideoFrame) -> Picture:
            source["source_height"], source["source_width"] = shown_size(frame, aspect)
            if reader.transfer is not None:
                source["source_hdr"] = reader.transfer
            return render(frame, aspect)

        starts = None if self.chosen is None else [clip.start_seconds for clip in self.chosen]
        chosen = {clip.start_seconds: clip for clip in self.chosen or ()}
        for clip in cut(reader.frames(), self.settings, seen, starts):
            known = chosen.get(clip.start) or ChosenClip(clip_key(self.name, num_clips), clip.start)
            metadata = {**source, "source_start_seconds": clip.start, **known.metadata}
            num_clips += 1
            yield Clip(known.key, np.stack(clip.pictures), metadata)
        if self.chosen is None and (reason := fault_of(reader, self.settings, num_clips)):
            raise SourceError(reason)


def choose(video: VideoFile, clips: Iterable[ChosenClip]) -> VideoFile:
    """Return the video as a source of these clips alone, in the order of their starts."""
    return replace(video, chosen=tuple(sorted(clips, key=lambda clip: clip.start_seconds)))


def fault_of(reader: VideoReader, settings: ClipSettings, num_clips: int) -> str | None:
    """Return in one line what was wrong with a video that was read to its end; None if nothing was."""
    kept = f"clips kept: {num_clips}"
    declared = reader.declared_seconds()
    if reader.num_frames == 0:
        return "no frame can be decoded"
    if reader.num_errors:
        return f"is damaged: packets that can't be decoded: {reader.num_errors}, in {reader.end:.2f} s; {kept}"
    if declared and (lasts := reader.read_seconds()) < declared - max(1.0, 0.05 * declared):
        return f"is cut short: lasts {lasts:.2f} s of the {declared:.2f} s it declares; {kept}"
    if reader.num_frames == 1 and settings.num_frames > 1:
        return "has a single frame"
    if num_clips == 0 and reader.end < settings.seconds:
        return f"is too short: lasts {reader.end:.2f} s, a clip {settings.seconds:.2f} s"
    if num_clips == 0:
        return "has no clip of moving pictures without a break"
    return None
