"""Decoding videos: frames with their presentation times, and frames as upright pictures with square pixels."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Interpolation
from jaxtyping import UInt8

from data_pipelines.deinterlacing import Deinterlacer
from data_pipelines.packets import PacketReader
from data_pipelines.settings import HDR
from data_pipelines.sources import LeftOutError, SourceError
from vdm.data.containers import bound_pixels, check_pixels
from vdm.data.frames import (
    MAX_DECLARED_FPS,
    believed_rate,
    film_of,
    opaque,
    orientation,
    pixel_aspect,
    square_size,
)
from vdm.data.hdr import Transfer
from vdm.data.hdr_frames import check_colors, transfer_of
from vdm.data.scaling import RGBScaler

JUMP_SECONDS = 10.0
"""A longer pause between two frames, or a longer step back in time, is a break in the film."""

_DECODING_TIMES = frozenset(("asf", "asf_o", "avi"))
"""FFmpeg's names of containers with decoding times only, from which FFmpeg guesses the presentation times."""
_NO_TIMES = 0x80
"""FFmpeg's flag ``AVFMT_NOTIMESTAMPS``: bare streams of a codec, for which FFmpeg assumes 25 frames a second."""
_MAX_STEPS_BACK = 2
"""A decoder may output so many frames out of order before it knows how far frames are reordered."""


Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Timed(Generic[Frame]):
    """A frame, or a stand-in for it, and when it is shown."""

    frame: Frame
    start: float
    """Seconds since the first frame."""
    duration: float
    """Seconds that it is shown if no frame follows; at most ``JUMP_SECONDS``."""
    after_break: bool
    """Whether damaged data or a jump in time comes before it."""


TimedFrame = Timed[av.VideoFrame]
"""A decoded frame and when it is shown."""


@dataclass(frozen=True)
class Damage:
    """A packet or frame that could not be decoded."""

    time: float
    """Its presentation time by the container's clock; minus infinity if unknown."""


class VideoReader:
    """Decodes one video from start to end, and counts its errors.

    It uses one thread, since other cores decode other videos. Metadata may be in any encoding.

    Args:
        container: The file.
        hdr: Whether videos of high dynamic range are mapped to standard range or left out.
    """

    def __init__(self, container: InputContainer, hdr: HDR = "map") -> None:
        stream = film_of(container)
        if stream is None:
            raise SourceError("has no video stream, " + ("sound only" if container.streams.audio else "nor sound"))
        self.container, self.stream = container, stream
        bound_pixels(self.stream)
        self.stream.thread_count = 1
        self._packets = PacketReader(container, self.stream)
        self._has_times = not container.format.flags & _NO_TIMES
        self._uses_decoding_times = container.format.name in _DECODING_TIMES
        self._last_shown: float | None = None
        self._num_steps_back = 0
        self.fps, self._has_durations = self._rate()
        self.end = 0.0
        """End of the last frame read so far, in seconds since the start of the first."""
        self.num_frames = 0
        self.transfer: Transfer | None = None
        """Transfer function of the last frame of high dynamic range that was read."""
        self._hdr: HDR = hdr
        self.num_errors = 0
        """Number of packets or frames that could not be decoded."""

    def _rate(self) -> tuple[float, bool]:
        """Return frames per second, 0 if unknown, and whether the durations of frames are reliable."""
        declared = float(self.stream.average_rate or self.stream.guessed_rate or 0)
        if not self._has_times:
            # The stream's headers may have the rate; for the container FFmpeg assumes 25.
            return float(self.stream.codec_context.framerate or declared), True
        if declared <= MAX_DECLARED_FPS:
            return declared, True
        rate = believed_rate(declared, self._packets.look_ahead())
        return rate, rate == declared

    def frames(self) -> Iterator[TimedFrame]:
        """Yield the frames in presentation order, interlaced ones deinterlaced; see ``_coded_frames``."""
        deinterlace: Deinterlacer | None = None
        waiting: deque[TimedFrame] = deque()
        for timed in self._coded_frames():
            if deinterlace is not None and (timed.after_break or not deinterlace.takes(timed.frame)):
                yield from (replace(waiting.popleft(), frame=frame) for frame in deinterlace(None))
                deinterlace = None
            if deinterlace is None and timed.frame.interlaced_frame:
                deinterlace = Deinterlacer(timed.frame, self.stream)
            if deinterlace is None:
                yield timed
            else:
                waiting.append(timed)
                yield from (replace(waiting.popleft(), frame=frame) for frame in deinterlace(timed.frame))
        if deinterlace is not None:
            yield from (replace(waiting.popleft(), frame=frame) for frame in deinterlace(None))

    def _coded_frames(self) -> Iterator[TimedFrame]:
        """Yield the frames in presentation order, as they are coded.

        After damage, frames up to the next key frame are skipped, since they depend on missing pictures.
        """
        origin = previous = 0.0
        damaged_until: float | None = None  # a key frame after that time ends the damage
        broken = False
        for item in self._decoded():
            if isinstance(item, Damage):
                self.num_errors += 1
                damaged_until, broken = item.time, True
                continue
            time, duration = self._times(item, previous)
            # Damaged packets have a presentation time only, so compare with that of the frame, right or wrong.
            if damaged_until is not None and not (
                item.key_frame and (time if item.time is None else item.time) > damaged_until
            ):
                continue
            damaged_until = None
            self._check_colors(item)
            if self.num_frames == 0:
                origin = time
            elif -JUMP_SECONDS <= time - previous <= 0:
                continue  # a repeated frame, or one out of order by a broken clock
            else:
                broken = broken or abs(time - previous) > JUMP_SECONDS
            self.num_frames += 1
            self.end = max(self.end, time - origin + duration)
            yield Timed(item, time - origin, min(duration, JUMP_SECONDS), after_break=broken)
            previous, broken = time, False

    def _check_colors(self, frame: av.VideoFrame) -> None:
        if (transfer := transfer_of(frame)) is not None:
            if self._hdr == "leave_out":
                raise LeftOutError(f"is HDR ({transfer}), which hdr=leave_out leaves out")
            check_colors(frame)
            self.transfer = transfer

    def _times(self, frame: av.VideoFrame, previous: float) -> tuple[float, float]:
        """Return when a frame is shown and for how long; missing times are guessed from the previous frame.

        A decoder outputs frames in presentation order, so times that step back repeatedly are wrong. The decoding times
        are then right, up to a constant.
        """
        usual = 1 / (self.fps or 25)
        unit = frame.time_base or self.stream.time_base
        duration = float(frame.duration * unit) if self._has_durations and frame.duration and unit else usual
        self._count_steps_back(frame.time)
        if not self._has_times:
            time = None
        elif self._uses_decoding_times:
            time = None if frame.dts is None or unit is None else float(frame.dts * unit)
        else:
            time = frame.time
        return (previous + usual if time is None else time), duration

    def _count_steps_back(self, time: float | None) -> None:
        """Count small steps back in the times of frames; use decoding times if there are too many."""
        if time is not None:
            if self._last_shown is not None and -JUMP_SECONDS <= time - self._last_shown < 0:
                self._num_steps_back += 1
                self._uses_decoding_times |= self._num_steps_back > _MAX_STEPS_BACK
            self._last_shown = time

    def _decoded(self) -> Iterator[av.VideoFrame | Damage]:
        packets = iter(self._packets)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except OSError:  # the storage is at fault
                raise
            except FFmpegError:  # the container is damaged, and the rest can't be found
                yield Damage(math.inf)
                return
            try:
                for frame in packet.decode():
                    yield Damage(-math.inf if frame.time is None else frame.time) if frame.is_corrupt else frame
            except FFmpegError:
                time = None if packet.pts is None or packet.time_base is None else packet.pts * packet.time_base
                yield Damage(-math.inf if time is None else float(time))

    def declared_seconds(self) -> float | None:
        """Return the duration that the file declares for the video stream, else for the container; None if unknown."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    def read_seconds(self) -> float:
        """Return how much of ``declared_seconds`` was read; the duration of a container includes its other streams."""
        return self.end if self.stream.duration else max(self.end, self._packets.end)

    def pixel_aspect(self) -> float:
        """Return the width of a pixel over its height."""
        return pixel_aspect(self.stream)


def shown_size(frame: av.VideoFrame, pixel_aspect: float) -> tuple[int, int]:
    """Return height and width of a frame as displayed, in square pixels as high as the coded ones."""
    height, width = square_size(frame, pixel_aspect)
    return (width, height) if orientation(frame).transpose else (height, width)


def picture(frame: av.VideoFrame, pixel_aspect: float, height: int, width: int) -> UInt8[np.ndarray, "h w c"]:
    """Return a frame in RGB, upright, with square pixels, scaled to cover the size and cropped centrally."""
    turn = orientation(frame)
    rows, columns = (width, height) if turn.transpose else (height, width)
    shown_width = frame.width * pixel_aspect
    scale = max(rows / frame.height, columns / shown_width)
    scaled = _rgb(frame, max(rows, round(frame.height * scale)), max(columns, round(shown_width * scale)))
    top, left = (scaled.shape[0] - rows) // 2, (scaled.shape[1] - columns) // 2
    return turn.apply(scaled[top : top + rows, left : left + columns])


def whole_picture(frame: av.VideoFrame, pixel_aspect: float, short_side: int) -> UInt8[np.ndarray, "h w c"]:
    """Return a whole frame in RGB, upright, with square pixels, its shorter side of ``short_side`` pixels."""
    shown_width = frame.width * pixel_aspect
    scale = short_side / min(frame.height, shown_width)
    return orientation(frame).apply(_rgb(frame, round(frame.height * scale), round(shown_width * scale)))


def thumbnail(frame: av.VideoFrame, height: int, width: int) -> UInt8[np.ndarray, "h w c"]:
    """Return a whole frame in RGB, resized without regard to aspect or rotation: fast, for shot detectors."""
    if transfer_of(frame) is not None:
        return RGBScaler(Interpolation.AREA)(frame, height, width)
    frame = opaque(frame)
    return frame.reformat(width, height, format="rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()


def _rgb(frame: av.VideoFrame, rows: int, columns: int) -> UInt8[np.ndarray, "rows columns c"]:
    check_pixels(rows, columns)  # scaling a long and narrow frame makes it much larger
    return RGBScaler()(frame, rows, columns)
