"""Reading of input videos, which are to be extended, interpolated or enlarged: any file that FFmpeg reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, dropwhile, pairwise
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import BlockingIOError as NothingYetError
from av.error import EOFError as NothingMoreError
from av.error import FFmpegError
from av.filter import Graph
from av.video.format import VideoFormat
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vdm.data.containers import TooLargeError, bound_pixels, check_pixels, open_video
from vdm.data.frames import DEINTERLACING, colorspace_of, film_of, opaque, orientation, pixel_aspect
from vdm.data.hdr_frames import UnreadColorsError, transfer_of
from vdm.data.mp4_tables import ImplausibleHeaderError
from vdm.data.scaling import RGBScaler

MAX_BYTES = 1 << 33
"""Bytes of the frames that are taken, at most: 10,000 frames of 512x512."""
_SEEK_MARGIN = 1.0
"""Seconds by which decoding of a video's end starts early; it then starts at the keyframe before that."""
_ROUNDED_TIME = 0.05
"""Share of a frame's duration by which the first frame may be late, since containers round times."""


_Picture = tuple[UInt8[np.ndarray, "h w c"], float | None]
"""A frame, and the time in seconds at which it is shown, if it is known."""


@dataclass(frozen=True)
class InputVideo:
    """Frames of a file, upright and with square pixels."""

    frames: UInt8[Tensor, "c t h w"]
    fps: float | None
    """Frames per second; None if the file does not say."""
    file_fps: float | None = None
    """Frames per second of the file itself, of which some or all frames were taken."""
    title: str = ""
    """Title in the file's metadata; ``vdm sample`` writes the caption there."""
    times: Sequence[float] | None = None
    """Seconds at which the frames are shown, ascending; None if unknown, or if ``fps`` chose them."""


def read_video(
    path: Path,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    min_seconds: float = 0.0,
) -> InputVideo:
    """Read a video's frames.

    Args:
        path: File in any container and codec that FFmpeg reads; a picture is a video of one frame.
        size: Height and width; frames are scaled to cover them and cropped at the centre. None keeps the size of the
            file, except that pixels become square.
        fps: Frames per second to take; None takes all frames.
        max_frames: How many frames to take from the beginning; None for all.
        min_seconds: More than ``max_frames`` frames are taken, up to the first one that is shown more than this after
            the first frame.

    Raises:
        ValueError: If it can't be read or has no frames.
    """
    with _film(path) as (container, stream):
        frames = _until(_pictures(container.decode(stream), stream, size, fps), max_frames, min_seconds)
        found = list(_bounded(frames, path))
        pictures, times = [picture for picture, _ in found], [time for _, time in found]
        rate, title = _rate(stream), container.metadata.get("title", "")
    if fps is not None and not pictures:  # shorter than 1 / fps, as a picture is
        return replace(read_video(path, size, None, 1), fps=fps)
    return InputVideo(_stacked(pictures, path), fps or rate, rate, title, _ascending(times) if fps is None else None)


def read_end(path: Path, size: tuple[int, int], fps: float, max_frames: int | None = None) -> InputVideo:
    """Read a video's last frames: its last one, and before it those nearest to every 1 / ``fps`` seconds.

    Only the end of a long video is decoded, if its container supports seeking.

    Args:
        path: As for ``read_video``.
        size: Height and width; frames are scaled to cover them and cropped at the centre.
        fps: Frames per second to take; more than the video has repeats frames.
        max_frames: How many frames to take; None for all.

    Raises:
        ValueError: If it can't be read or has no frames.
    """
    span = None if max_frames is None else (max_frames - 1) / fps
    start, times = _times_of_end(path, span)
    num_frames = int((times[-1] - times[0]) * fps + _ROUNDED_TIME) + 1
    num_frames = num_frames if max_frames is None else min(num_frames, max_frames)
    _check_bytes(num_frames, 3 * size[0] * size[1], path)
    chosen = _nearest(times, [times[-1] - number / fps for number in range(num_frames)][::-1])
    wanted = frozenset(chosen)
    with _film(path) as (container, stream):
        pictures = _pictures(_decoded(container, stream, start), stream, size, None)
        by_number = {number: picture for number, (picture, _) in enumerate(pictures) if number in wanted}
        rate = _rate(stream)
    return InputVideo(_stacked([by_number[number] for number in chosen if number in by_number], path), fps, rate)


@contextmanager
def _film(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open the video stream of a file; errors in the block become one line."""
    try:
        with open_video(path) as container:
            stream = film_of(container)
            if stream is None:
                raise ValueError(f"input={path}: there is no video in it")
            bound_pixels(stream)
            yield container, stream
    except FileNotFoundError:
        raise ValueError(f"input={path}: no such file") from None
    except (ImplausibleHeaderError, TooLargeError, UnreadColorsError) as error:
        raise ValueError(f"input={path}: can't be used: {error}") from None
    except (FFmpegError, OSError) as error:
        raise ValueError(f"input={path}: can't be read as a video: {error.strerror or error}") from None


def _rate(stream: av.VideoStream) -> float | None:
    """Return frames per second; None if the file does not say."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def _stacked(pictures: Sequence[UInt8[np.ndarray, "h w c"]], path: Path) -> UInt8[Tensor, "c t h w"]:
    if not pictures:
        raise ValueError(f"input={path}: there are no frames in it")
    return rearrange(torch.from_numpy(np.stack(pictures)), "t h w c -> c t h w").contiguous()


def _times_of_end(path: Path, span: float | None) -> tuple[Fraction | None, list[float]]:
    """Return where decoding must start for the last ``span`` seconds, and the times of all frames from there on.

    Returns:
        The position to seek in seconds, None for the beginning of the file; and the times of the frames in seconds.
    """
    with _film(path) as (container, stream):
        start = None if span is None else _place_before_end(container, stream, span)
    if start is not None and span is not None:
        try:
            with _film(path) as (container, stream):
                times = _times(_decoded(container, stream, start), None)
        except ValueError:  # seeking is not supported
            times = []
        if times and times[-1] - times[0] >= span:
            return start, times
    with _film(path) as (container, stream):
        times = _times(_decoded(container, stream, None), _rate(stream))
    if not times:
        raise ValueError(f"input={path}: there are no frames in it")
    return None, times


def _place_before_end(container: InputContainer, stream: av.VideoStream, span: float) -> Fraction | None:
    """Return a time shortly before the last ``span`` seconds; None if it is unknown or the beginning of the file."""
    if stream.duration is not None and stream.time_base is not None:
        begin, length = (stream.start_time or 0) * stream.time_base, stream.duration * stream.time_base
    elif container.duration is not None:
        begin, length = Fraction(container.start_time or 0, av.time_base), Fraction(container.duration, av.time_base)
    else:
        return None
    place = length - Fraction(span + _SEEK_MARGIN)
    return begin + place if place > 0 else None


def _decoded(container: InputContainer, stream: av.VideoStream, start: Fraction | None) -> Iterator[av.VideoFrame]:
    """Decode from the keyframe before ``start`` (seconds), or from the beginning."""
    if start is None or stream.time_base is None:
        return container.decode(stream)
    container.seek(int(start / stream.time_base), stream=stream)
    return dropwhile(lambda frame: not frame.key_frame, container.decode(stream))


def _times(frames: Iterator[av.VideoFrame], rate: float | None) -> list[float]:
    """Return the time in seconds at which each frame is shown: its own, else by ``rate``; none if both are unknown."""
    times = [frame.time for frame in frames]
    known = _ascending(times)
    if known is not None:
        return known
    return [] if rate is None else [number / rate for number in range(len(times))]


def _ascending(times: Sequence[float | None]) -> list[float] | None:
    """Return the times of frames if all are known, and none is earlier than the one before."""
    known = [time for time in times if time is not None]
    is_whole = len(known) == len(times) and all(earlier <= later for earlier, later in pairwise(known))
    return known if is_whole else None


def _nearest(times: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """Return the index of the one of ascending ``times`` nearest to each wanted one; of two equally near, the later."""
    later = np.searchsorted(times, wanted)
    earlier, later = np.maximum(later - 1, 0), np.minimum(later, len(times) - 1)
    given, asked = np.asarray(times), np.asarray(wanted)
    return np.where(given[later] - asked <= asked - given[earlier], later, earlier).tolist()


def _check_bytes(num_frames: int, bytes_of_frame: int, path: Path) -> None:
    """Refuse frames that don't fit into memory together."""
    fitting = MAX_BYTES // bytes_of_frame
    if num_frames > fitting:
        raise ValueError(f"input={path}: its frames take more than {MAX_BYTES >> 30} GiB; input_frames={fitting} fits")


def _until(pictures: Iterator[_Picture], max_frames: int | None, min_seconds: float) -> Iterator[_Picture]:
    """Yield pictures up to ``max_frames``, and further ones until ``min_seconds`` are over; see ``read_video``."""
    begin: float | None = None
    is_over = min_seconds <= 0
    for number, (picture, time) in enumerate(pictures):
        yield picture, time
        begin = time if number == 0 else begin
        is_over = is_over or (time is not None and begin is not None and time > begin + min_seconds)
        if is_over and max_frames is not None and number + 1 >= max_frames:
            return


def _bounded(pictures: Iterator[_Picture], path: Path) -> Iterator[_Picture]:
    """Yield pictures as long as they fit into memory."""
    left = MAX_BYTES
    for number, (picture, time) in enumerate(pictures):
        left -= picture.nbytes
        if left < 0:
            raise ValueError(
                f"input={path}: its frames take more than {MAX_BYTES >> 30} GiB; input_frames={number} takes the first"
            )
        yield picture, time


def _pictures(
    frames: Iterator[av.VideoFrame], stream: av.VideoStream, size: tuple[int, int] | None, fps: float | None
) -> Iterator[_Picture]:
    """Yield the frames in RGB, upright, in their final size, and the time at which each is shown."""
    first = next(frames, None)
    if first is None:
        return
    turn, fit = orientation(first), _fit(first, stream, size)
    graph, scale = _graph(first, stream, fit, fps), RGBScaler()
    for frame in chain([first], frames, [None]):
        graph.vpush(None if frame is None else _filterable(frame, first))
        for picture in _ready(graph):
            # FFmpeg's filters neither rotate frames nor map high dynamic range.
            is_rgb = picture.format.name == "rgb24"
            pixels = picture.to_ndarray() if is_rgb else fit.cropped(scale(picture, fit.rows, fit.columns))
            yield turn.apply(pixels), picture.time


@dataclass(frozen=True)
class _Fit:
    """The size that frames are scaled to, and the size of the crop, both before rotation."""

    rows: int
    columns: int
    height: int
    width: int

    def cropped(self, picture: UInt8[np.ndarray, "rows columns c"]) -> UInt8[np.ndarray, "h w c"]:
        """Return the centre of a picture."""
        top, left = (self.rows - self.height) // 2, (self.columns - self.width) // 2
        return picture[top : top + self.height, left : left + self.width]


def _fit(first: av.VideoFrame, stream: av.VideoStream, size: tuple[int, int] | None) -> _Fit:
    shown_width = first.width * pixel_aspect(stream)
    is_turned = orientation(first).transpose
    height, width = (first.height, round(shown_width)) if size is None else size[::-1] if is_turned else size
    scale = max(height / first.height, width / shown_width)
    fit = _Fit(max(height, round(first.height * scale)), max(width, round(shown_width * scale)), height, width)
    check_pixels(fit.rows, fit.columns)
    return fit


def _filterable(frame: av.VideoFrame, first: av.VideoFrame) -> av.VideoFrame:
    """Return a frame without transparency, in the format that the filters expect."""
    if transfer_of(first) is not None:
        return frame.reformat(format=first.format.name)
    return opaque(frame).reformat(format=_filtered_format(first), dst_colorspace=colorspace_of(first))


def _filtered_format(first: av.VideoFrame) -> str:
    return "rgba" if first.format.has_palette else first.format.name


def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
    """Yield the frames that the filters have finished."""
    while True:
        try:
            yield graph.vpull()
        except (NothingYetError, NothingMoreError):
            return


def _graph(first: av.VideoFrame, stream: av.VideoStream, fit: _Fit, fps: float | None) -> Graph:
    """Return filters that choose frames by time; frames of standard range are also scaled, cropped and made RGB."""
    matrix = "" if colorspace_of(first) is None else ":in_color_matrix=bt709"
    covering = f"{fit.columns}:{fit.rows}:flags=bicubic+accurate_rnd+full_chroma_int{matrix}"
    graph = Graph()
    to_rgb = [("scale", covering), ("crop", f"{fit.width}:{fit.height}"), ("format", "rgb24")]
    filters = [
        graph.add_buffer(template=stream, format=VideoFormat(_filtered_format(first))),
        *([graph.add("bwdif", DEINTERLACING)] if first.interlaced_frame else []),
        *([] if fps is None else [graph.add("fps", str(fps))]),
        *(graph.add(*one) for one in (to_rgb if transfer_of(first) is None else [])),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*filters).configure()
    return graph
