"""Reading videos: frames with their times, and each frame as an upright picture of square pixels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace, Interpolation
from jaxtyping import UInt8

from data_pipelines.sources import SourceError, is_cover
from vdm.data.containers import bound_pixels, check_pixels
from vdm.data.scaling import RGBScaler

JUMP_SECONDS = 10.0
"""A longer pause between two frames, or a step back, is a break in the film and no slow motion."""

_UNSPECIFIED_COLORSPACE = 2


Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Timed(Generic[Frame]):
    """A frame, or what stands for it, and when it is shown."""

    frame: Frame
    start: float
    """Seconds since the first frame."""
    duration: float
    """Seconds it is shown if nothing follows; whatever the file says, not more than ``JUMP_SECONDS``."""
    after_break: bool
    """Whether something is missing before it: damaged data, or a jump in time."""


TimedFrame = Timed[av.VideoFrame]
"""A decoded frame and when it is shown."""


@dataclass(frozen=True)
class Damage:
    """Something that could not be decoded."""

    time: float
    """When it was to be shown, in the container's time; minus infinity if that is not known."""


class VideoReader:
    """Decodes one video from start to end and remembers what was wrong with it.

    Decoding is done by one thread, as other cores have other videos. Metadata may be in any encoding.
    """

    def __init__(self, container: InputContainer) -> None:
        streams = [stream for stream in container.streams.video if not is_cover(stream)]
        if not streams:
            raise SourceError("has no video stream, " + ("sound only" if container.streams.audio else "nor sound"))
        self.container, self.stream = container, streams[0]
        bound_pixels(self.stream)
        self.stream.thread_count = 1
        self.fps = float(self.stream.average_rate or self.stream.guessed_rate or 0)
        self.end = 0.0
        """When the last frame read so far ends, in seconds since the first."""
        self.num_frames = 0
        self.num_errors = 0
        """Packets or frames that could not be decoded."""

    def frames(self) -> Iterator[TimedFrame]:
        """Yield the frames in the order in which they are shown.

        After damage nothing is yielded until a later key frame, as what lies between is made of missing pictures.
        """
        origin = previous = 0.0
        damaged_until: float | None = None  # the next key frame after that time ends the damage
        broken = False
        for item in self._decoded():
            if isinstance(item, Damage):
                self.num_errors += 1
                damaged_until, broken = item.time, True
                continue
            time, duration = self._times(item, previous)
            if damaged_until is not None and not (item.key_frame and time > damaged_until):
                continue
            damaged_until = None
            if self.num_frames == 0:
                origin = time
            elif -JUMP_SECONDS <= time - previous <= 0:
                continue  # shown before, or out of order by a broken clock
            else:
                broken = broken or abs(time - previous) > JUMP_SECONDS
            self.num_frames += 1
            self.end = max(self.end, time - origin + duration)
            yield Timed(item, time - origin, min(duration, JUMP_SECONDS), after_break=broken)
            previous, broken = time, False

    def _times(self, frame: av.VideoFrame, previous: float) -> tuple[float, float]:
        """Return when a frame is shown and for how long, guessed from the frame before where the file is silent."""
        usual = 1 / (self.fps or 25)
        duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else usual
        return (previous + usual if frame.time is None else frame.time), duration

    def _decoded(self) -> Iterator[av.VideoFrame | Damage]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except OSError:  # the storage is at fault
                raise
            except FFmpegError:  # the container is damaged: what follows can't be found
                yield Damage(math.inf)
                return
            try:
                for frame in packet.decode():
                    yield Damage(-math.inf if frame.time is None else frame.time) if frame.is_corrupt else frame
            except FFmpegError:
                time = None if packet.pts is None or packet.time_base is None else packet.pts * packet.time_base
                yield Damage(-math.inf if time is None else float(time))

    def declared_seconds(self) -> float | None:
        """How long the container says that the video lasts, if it does."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    def pixel_aspect(self) -> float:
        """Width of a pixel over its height; 1 where the file says nothing or nonsense."""
        aspect = float(self.stream.sample_aspect_ratio or Fraction(1))
        return aspect if 0.1 <= aspect <= 10 else 1.0


@dataclass(frozen=True)
class Orientation:
    """How to turn a coded picture upright: first transpose, then flip."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, picture: UInt8[np.ndarray, "rows columns c"]) -> UInt8[np.ndarray, "h w c"]:
        """Return the picture as it is to be seen."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def orientation(frame: av.VideoFrame) -> Orientation:
    """Read the display matrix of a frame, rounded to a quarter turn, with or without a mirror.

    The matrix [[a, b, u], [c, d, v], [x, y, w]] sends column p and row q to column a p + c q and row b p + d q.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(flip_rows=d < 0, flip_columns=a < 0)


def shown_size(frame: av.VideoFrame, pixel_aspect: float) -> tuple[int, int]:
    """Return height and width of a frame as a viewer sees it, in square pixels of the coded rows' size."""
    height, width = frame.height, round(frame.width * pixel_aspect)
    return (width, height) if orientation(frame).transpose else (height, width)


def picture(frame: av.VideoFrame, pixel_aspect: float, height: int, width: int) -> UInt8[np.ndarray, "h w c"]:
    """Return a frame as RGB, upright, of square pixels, scaled to cover the size and cropped centrally."""
    turn = orientation(frame)
    rows, columns = (width, height) if turn.transpose else (height, width)
    shown_width = frame.width * pixel_aspect
    scale = max(rows / frame.height, columns / shown_width)
    scaled = _rgb(frame, max(rows, round(frame.height * scale)), max(columns, round(shown_width * scale)))
    top, left = (scaled.shape[0] - rows) // 2, (scaled.shape[1] - columns) // 2
    return turn.apply(scaled[top : top + rows, left : left + columns])


def whole_picture(frame: av.VideoFrame, pixel_aspect: float, short_side: int) -> UInt8[np.ndarray, "h w c"]:
    """Return all of a frame as RGB, upright, of square pixels, its shorter side of ``short_side`` pixels."""
    shown_width = frame.width * pixel_aspect
    scale = short_side / min(frame.height, shown_width)
    return orientation(frame).apply(_rgb(frame, round(frame.height * scale), round(shown_width * scale)))


def thumbnail(frame: av.VideoFrame, height: int, width: int) -> UInt8[np.ndarray, "h w c"]:
    """Return all of a frame as RGB squeezed into a size, as it is coded; quick, for those that look at change only."""
    return frame.reformat(width, height, format="rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()


def _rgb(frame: av.VideoFrame, rows: int, columns: int) -> UInt8[np.ndarray, "rows columns c"]:
    check_pixels(rows, columns)  # of what is long and narrow, scaling makes very much more
    return RGBScaler()(frame, rows, columns, _source_colorspace(frame))


def _source_colorspace(frame: av.VideoFrame) -> Colorspace | None:
    """The frame's own, or what players take for granted in high definition; None is FFmpeg's default, BT.601."""
    is_unspecified = frame.colorspace == _UNSPECIFIED_COLORSPACE and not frame.format.is_rgb
    return Colorspace.ITU709 if is_unspecified and frame.height >= 720 else None
