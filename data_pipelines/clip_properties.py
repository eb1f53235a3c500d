"""Properties of a video or picture in a WebDataset, and whether training can read it unchanged."""

import io
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import Int
from PIL import ExifTags

from vdm.data.containers import bound_pixels, check_pixels, clip_format, open_picture, open_video
from vdm.data.decoding import PICTURE_ERRORS, unique_times
from vdm.data.frames import Orientation, believed_rate, film_of, orientation, pixel_aspect, square_size
from vdm.data.hdr_frames import check_colors, transfer_of
from vdm.data.shards import Shape

_ANIMATIONS = ("GIF", "PNG", "WEBP")
"""Pillow's names of animated formats. Not JPEG: phones store several pictures in one, which are no animation."""


class UnusableError(ValueError):
    """Why training can't use a tar or a sample."""


class ClipProperties(NamedTuple):
    """Properties of a clip, found by decoding at most one frame."""

    shape: Shape
    """Frames, rows and columns."""
    fps: float | None = None
    is_even: bool = True
    """Whether the frame rate is constant, or nearly so."""
    is_hdr: bool = False


def inspect_video(file: io.BufferedIOBase) -> ClipProperties:
    """Return the properties of a video; decode and hold at most one frame.

    Raises:
        UnusableError: If training can't read it unchanged.
        ValueError: If it declares too large a size, or its colours are not supported.
    """
    try:
        with open_video(file, clip_format(file)) as container:
            stream = film_of(container)
            if stream is None:
                raise UnusableError("holds no video")
            bound_pixels(stream)
            times = unique_times(container, stream)
            rate = believed_rate(float(stream.average_rate or 0), _mean_rate(times, stream)) or None
            container.seek(0)
            frame = next(container.decode(stream), None)
            aspect = pixel_aspect(stream)
    except FFmpegError as error:
        if other := _other_format(file):
            reason = f"its video is {other}, where mp4, MOV and WebM are read; make it one of these"
            raise UnusableError(reason) from None
        raise UnusableError(f"its video can't be read: {error.strerror}") from None
    if frame is None or not len(times):
        raise UnusableError("no frame of its video decodes")
    if orientation(frame) != Orientation():
        raise UnusableError("its video is stored turned or mirrored, for players to undo; encode it upright")
    if frame.interlaced_frame:
        raise UnusableError("its video is interlaced, for players to undo; deinterlace it")
    height, width = square_size(frame, aspect)
    check_pixels(height, width)
    check_colors(frame)
    return ClipProperties((len(times), height, width), rate, _are_even(times), transfer_of(frame) is not None)


def _mean_rate(times: Int[np.ndarray, " t"], stream: av.VideoStream) -> float | None:
    if len(times) < 2 or not stream.time_base:
        return None
    return float((len(times) - 1) / (int(times[-1] - times[0]) * stream.time_base))


def _other_format(file: io.BufferedIOBase) -> str | None:
    """Return FFmpeg's name of the actual container format; None if FFmpeg finds no video."""
    file.seek(0)
    try:
        with open_video(file) as container:
            is_video = film_of(container) is not None and not container.format.name.endswith("_pipe")
            return container.format.long_name if is_video else None
    except (FFmpegError, ValueError):
        return None


def _are_even(times: Int[np.ndarray, " t"]) -> bool:
    """Whether every time is within one mean interval of its place in a sequence of equal intervals."""
    since = (times - times[0]).astype(float)
    mean = since[-1] / max(1, len(times) - 1)
    return bool((np.abs(since - np.arange(len(times)) * mean) <= mean).all())


def inspect_picture(file: io.BufferedIOBase) -> ClipProperties:
    """Return the properties of a picture without decoding it.

    Raises:
        UnusableError: If training can't read it unchanged.
    """
    try:
        with open_picture(file) as image:
            if image.format in _ANIMATIONS and getattr(image, "is_animated", False):
                raise UnusableError("its picture is animated, of which one frame would be seen; make it an mp4")
            shape, turn = (1, image.height, image.width), image.getexif().get(ExifTags.Base.Orientation, 1)
    except UnusableError:
        raise
    except PICTURE_ERRORS as error:
        raise UnusableError(f"its picture can't be read: {error}") from None
    if turn in range(2, 9):
        raise UnusableError("its picture is stored turned or mirrored, for viewers to undo; encode it upright")
    return ClipProperties(shape)
