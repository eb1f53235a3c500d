"""Videos that people want extended, interpolated or enlarged: any file that FFmpeg reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
import torch
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
from vdm.data.mp4_tables import FalseClaimError
from vdm.data.scaling import RGBScaler

MAX_BYTES = 1 << 33
"""Of the frames that are taken: 10,000 of 512x512."""


@dataclass(frozen=True)
class InputVideo:
    """Frames of a file, upright, of square pixels."""

    frames: UInt8[Tensor, "c t h w"]
    fps: float | None
    """Frames per second, none where the file says nothing."""


def read_video(
    path: Path, size: tuple[int, int] | None = None, fps: float | None = None, max_frames: int | None = None
) -> InputVideo:
    """Read a video's frames.

    Args:
        path: File in any container and codec that FFmpeg reads; a picture is a video of one frame.
        size: Height and width that the frames are scaled to cover and cut to in the middle; none leaves them as they
            are, but for pixels that are not square.
        fps: Frames per second to take; none takes all frames.
        max_frames: How many frames to take from the beginning, none for all.

    Raises:
        ValueError: If it can't be read or has no frames.
    """
    try:
        with open_video(path) as container:
            stream = film_of(container)
            if stream is None:
                raise ValueError(f"input={path}: there is no video in it")
            bound_pixels(stream)
            rate = stream.average_rate or stream.guessed_rate
            frames = _pictures(container.decode(stream), stream, size, fps)
            pictures = list(_bounded(islice(frames, max_frames), path))
    except FileNotFoundError:
        raise ValueError(f"input={path}: no such file") from None
    except (FalseClaimError, TooLargeError, UnreadColorsError) as error:
        raise ValueError(f"input={path}: can't be used: {error}") from None
    except (FFmpegError, OSError) as error:
        raise ValueError(f"input={path}: can't be read as a video: {error.strerror or error}") from None
    if not pictures:
        raise ValueError(f"input={path}: there are no frames in it")
    frames = rearrange(torch.from_numpy(np.stack(pictures)), "t h w c -> c t h w").contiguous()
    return InputVideo(frames, fps or (float(rate) if rate else None))


def _bounded(pictures: Iterator[UInt8[np.ndarray, "h w c"]], path: Path) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yield pictures as long as they fit into memory."""
    left = MAX_BYTES
    for number, picture in enumerate(pictures):
        left -= picture.nbytes
        if left < 0:
            raise ValueError(
                f"input={path}: its frames take more than {MAX_BYTES >> 30} GiB; input_frames={number} takes the first"
            )
        yield picture


def _pictures(
    frames: Iterator[av.VideoFrame], stream: av.VideoStream, size: tuple[int, int] | None, fps: float | None
) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yield the frames as they are to be seen."""
    first = next(frames, None)
    if first is None:
        return
    turn, fit = orientation(first), _fit(first, stream, size)
    graph, scale = _graph(first, stream, fit, fps), RGBScaler()
    for frame in chain([first], frames, [None]):
        graph.vpush(None if frame is None else _filterable(frame, first))
        for picture in _ready(graph):
            # FFmpeg's filters leave turning to the viewer, and high dynamic range as it is.
            is_rgb = picture.format.name == "rgb24"
            yield turn.apply(picture.to_ndarray() if is_rgb else fit.cropped(scale(picture, fit.rows, fit.columns)))


@dataclass(frozen=True)
class _Fit:
    """To what size frames are scaled, and what of that is taken, both as they are coded."""

    rows: int
    columns: int
    height: int
    width: int

    def cropped(self, picture: UInt8[np.ndarray, "rows columns c"]) -> UInt8[np.ndarray, "h w c"]:
        """Return the middle of a picture."""
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
    """Return a frame without transparent parts, in the format that the filters expect."""
    if transfer_of(first) is not None:
        return frame.reformat(format=first.format.name)
    return opaque(frame).reformat(format=_filtered_format(first), dst_colorspace=colorspace_of(first))


def _filtered_format(first: av.VideoFrame) -> str:
    return "rgba" if first.format.has_palette else first.format.name


def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
    """Yield what the filters have finished."""
    while True:
        try:
            yield graph.vpull()
        except (NothingYetError, NothingMoreError):
            return


def _graph(first: av.VideoFrame, stream: av.VideoStream, fit: _Fit, fps: float | None) -> Graph:
    """Return filters that choose frames by time; of standard range, they also scale and cut them, and make them RGB."""
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
