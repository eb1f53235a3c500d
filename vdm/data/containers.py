"""Safe opening of untrusted videos and pictures: no other file is opened, and memory is bounded.

FFmpeg would take a playlist or a list of files for a video and open what it names, from this disk or from the network;
Pillow would hand PostScript over to another program.
"""

import errno
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import ArgumentError, InvalidDataError
from PIL import Image

from vdm.data.mp4_tables import check_tables
from vdm.data.shards import MAX_PIXELS
from vdm.regular_files import open_regular

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Allowed formats of pictures in shards, whatever their names say."""

# fmt: off
_VIDEO_FORMATS = (
    "3g2", "3gp", "amv", "apng", "asf", "asf_o", "av1", "avi", "avs2", "avs3", "bink", "cavsvideo", "dirac", "dnxhd",
    "dv", "evc", "flic", "flv", "gif", "gxf", "h261", "h263", "h264", "hevc", "ingenient", "ipu", "ivf", "ivr",
    "live_flv", "lmlm4", "m4v", "matroska", "mj2", "mjpeg", "mjpeg_2000", "mov", "mp4", "mpeg", "mpegts", "mpegvideo",
    "mpjpeg", "mxf", "nsv", "nut", "nuv", "obu", "ogg", "pva", "r3d", "rm", "roq", "smk", "swf", "ty", "vc1", "vc1test",
    "vivo", "vvc", "webm", "wtv", "yuv4mpegpipe",
)
_PICTURE_FORMATS = (
    "bmp_pipe", "dpx_pipe", "exr_pipe", "j2k_pipe", "jpeg_pipe", "jpegxl_pipe", "pam_pipe", "pbm_pipe", "pgm_pipe",
    "png_pipe", "ppm_pipe", "qoi_pipe", "sgi_pipe", "tiff_pipe", "webp_pipe",
)
# fmt: on
"""FFmpeg's names of formats that never refer to other files."""
_MAX_STREAMS = 64
"""Streams of a container that FFmpeg may probe by decoding."""
_MATROSKA = b"\x1aE\xdf\xa3"
"""First bytes of Matroska and WebM (RFC 8794, section 11.2.1)."""


class TooLargeError(ValueError):
    """Frames or pictures of more than ``MAX_PIXELS``."""


@contextmanager
def open_video(
    source: Path | str | io.BufferedIOBase,
    format: str | None = None,
    options: dict[str, str] | None = None,
    stream_options: dict[str, str] | None = None,
) -> Iterator[InputContainer]:
    """Open a video or picture by FFmpeg.

    Args:
        source: A path, never taken for a URL, or an open file.
        format: FFmpeg's name of the container, where it is known.
        options: FFmpeg's options for the container.
        stream_options: FFmpeg's options for each stream while it is probed.

    Raises:
        FFmpegError: If FFmpeg can't read it, or it is a list of other files.
        OSError: If the file is missing or not a regular file.
        ImplausibleHeaderError: If its header has more frames than the file can hold.
    """
    if isinstance(source, Path | str):
        with open_regular(source) as file, open_video(file, format, options, stream_options) as container:
            yield container
        return
    check_tables(source)
    allowed = {"format_whitelist": ",".join((*_VIDEO_FORMATS, *_PICTURE_FORMATS)), "protocol_whitelist": "none"}
    of_streams = [{"max_pixels": str(MAX_PIXELS), **(stream_options or {})}] * _MAX_STREAMS
    settings: Any = {
        "options": {**(options or {}), **allowed},
        "stream_options": of_streams,
    }  # PyAV's annotations lack these
    try:
        container = av.open(source, "r", format, metadata_errors="ignore", io_open=_refuse, **settings)
    except ArgumentError as error:
        reason = "is no video, or it is a list of other files, which are not opened"
        raise InvalidDataError(error.errno or errno.EINVAL, reason, str(getattr(source, "name", ""))) from None
    with container:
        yield container


def _refuse(url: str, flags: int, options: dict[str, str]) -> io.BufferedIOBase:
    raise PermissionError(f"a video may not open {url}")


def clip_format(source: io.BufferedIOBase) -> str:
    """Return FFmpeg's name for the container of a clip in a shard; some ``.mp4`` are WebM.

    Args:
        source: An open file; it is at its start afterwards.
    """
    source.seek(0)
    start = source.read(len(_MATROSKA))
    source.seek(0)
    return "matroska" if start == _MATROSKA else "mp4"


def bound_pixels(stream: av.VideoStream) -> None:
    """Make a stream's decoder refuse frames of more than ``MAX_PIXELS``; call this before decoding.

    Raises:
        TooLargeError: If the header already says that its frames are larger.
    """
    check_pixels(stream.height or 0, stream.width or 0)
    stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(MAX_PIXELS)}


def check_pixels(height: float, width: float) -> None:
    """Refuse a picture that would take too much memory, by its size in pixels.

    Raises:
        TooLargeError: If it has more than ``MAX_PIXELS``.
    """
    if height * width > MAX_PIXELS:
        raise TooLargeError(
            f"a picture of {height:.0f}x{width:.0f} pixels, more than the {MAX_PIXELS} that are allowed"
        )


@contextmanager
def open_picture(
    source: Path | bytes | memoryview | io.BufferedIOBase, formats: tuple[str, ...] = PICTURE_FORMATS
) -> Iterator[Image.Image]:
    """Open a picture with Pillow; check its size before it is decoded.

    Args:
        source: A path, an open file, or the content of one.
        formats: Allowed formats, by Pillow's names.

    Raises:
        TooLargeError: If it has too many pixels.
        Exception: One of ``PICTURE_ERRORS`` of ``vdm.data.decoding``, if it can't be read.
    """
    opened: Any = source
    if isinstance(source, Path):
        opened = open_regular(source)
    elif isinstance(source, bytes | memoryview):
        opened = io.BytesIO(source)
    with opened as file:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here
            lazy = Image.open(file, formats=formats)
        with lazy as image:
            check_pixels(image.height, image.width)
            yield image
