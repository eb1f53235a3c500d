"""Rules for decoded frames and pictures: upright, square pixels, RGB without transparency.

Training, sampling and the data tools all read videos and pictures by these rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.format import VideoFormat
from av.video.reformatter import Colorspace
from jaxtyping import UInt8
from PIL import Image

BACKGROUND = 255
"""Grey level of the background behind transparent pixels: white."""
DEINTERLACING = "mode=send_frame:deint=interlaced"
"""Options of FFmpeg's bwdif: a picture for each frame, and frames that are not interlaced stay as they are."""
MAX_DECLARED_FPS = 240
"""Higher rates are believed only if the times of the frames agree. Matroska, WebM and FLV may have no rate, for which
FFmpeg then takes the unit of their times, a millisecond."""
_UNSPECIFIED_COLORSPACE = 2
_HIGH_DEFINITION_ROWS = 720
"""Players assume BT.709 for videos of at least so many rows that don't name their colour matrix, and BT.601 below."""


def _unknown_type(cls: Any, value: object) -> Any:
    """Return an enum member for a kind of side data that FFmpeg knows and PyAV does not."""
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# Else a frame that has EXIF data or a view's number has no side data at all, only a ValueError.
_kinds: Any = Type
_kinds._missing_ = classmethod(_unknown_type)


def is_cover(stream: av.VideoStream) -> bool:
    """Whether a stream is a still picture attached to music or a film."""
    return bool(stream.disposition & Disposition.attached_pic)


def film_of(container: InputContainer) -> av.VideoStream | None:
    """Return the main video stream, or None.

    Cover pictures are not candidates. Of several streams it is the one marked as the default, then the one with the
    most pixels, then the first: FFmpeg's choice without the criteria that depend on how much of the file was probed.
    """
    films = [stream for stream in container.streams.video if not is_cover(stream)]
    return max(films, key=_rank, default=None)


def _rank(stream: av.VideoStream) -> tuple[bool, int]:
    return bool(stream.disposition & Disposition.default), (stream.height or 0) * (stream.width or 0)


def believed_rate(declared: float, observed: float | None) -> float:
    """Return frames per second of a video: the declared rate, unless it is implausible and the frames disagree.

    Args:
        declared: Rate in the container; 0 if it has none.
        observed: Mean of some frames by their times, if they have any.
    """
    if declared <= MAX_DECLARED_FPS or observed is None or observed > declared / 2:
        return declared
    return observed


def pixel_aspect(stream: av.VideoStream) -> float:
    """Return the width of a pixel over its height; 1 if the file has no plausible value.

    Some files have it in the bitstream alone, so that it is unknown before a frame has been decoded.
    """
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return aspect if 0.1 <= aspect <= 10 else 1.0


@dataclass(frozen=True)
class Orientation:
    """Transformation of a coded picture to its upright form: first transpose, then flip."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, picture: UInt8[np.ndarray, "rows columns c"]) -> UInt8[np.ndarray, "h w c"]:
        """Return the upright picture."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def orientation(frame: av.VideoFrame) -> Orientation:
    """Read the display matrix of a frame, rounded to a quarter turn, with or without a flip.

    The matrix [[a, b, u], [c, d, v], [x, y, w]] sends column p and row q to column a p + c q and row b p + d q.
    """
    side_data: Mapping[Any, Any] = frame.side_data
    data = side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(flip_rows=d < 0, flip_columns=a < 0)


def square_size(frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
    """Return rows and columns of a coded frame after stretching its rows to square pixels.

    Args:
        frame: The frame.
        aspect: Of its pixels; see ``pixel_aspect``.
    """
    return frame.height, round(frame.width * aspect)


def colorspace_of(frame: av.VideoFrame) -> Colorspace | None:
    """Return the colour space that players assume for a frame; None means its own, or FFmpeg's default, BT.601."""
    if frame.height < _HIGH_DEFINITION_ROWS or frame.colorspace != _UNSPECIFIED_COLORSPACE or frame.format.is_rgb:
        return None
    return Colorspace.ITU709


@lru_cache
def has_alpha(format_name: str) -> bool:
    """Whether frames of a pixel format may be transparent."""
    pixel_format = VideoFormat(format_name)
    return pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)


def opaque(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a frame composed onto ``BACKGROUND``; itself if it is opaque.

    A composed frame is RGB without a display matrix or a pixel aspect.
    """
    if not has_alpha(frame.format.name):
        return frame
    pixels = frame.reformat(format="rgba", src_colorspace=colorspace_of(frame), threads=1).to_ndarray()
    if (pixels[..., 3] == 255).all():
        return frame
    made = av.VideoFrame.from_ndarray(on_background(pixels[..., :3], pixels[..., 3:]), format="rgb24")
    made.pts, made.time_base = frame.pts, frame.time_base
    return made


def on_background(
    pixels: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w 1"] | None
) -> UInt8[np.ndarray, "h w 3"]:
    """Return pixels composed onto ``BACKGROUND`` by their alpha; None is opaque."""
    if alpha is None:
        return pixels
    share = alpha.astype(np.uint16)
    return ((pixels * share + BACKGROUND * (255 - share) + 127) // 255).astype(np.uint8)


def rgb_picture(picture: Image.Image) -> Image.Image:
    """Return a picture as RGB of 8 bits, composed onto ``BACKGROUND``."""
    if picture.mode.startswith(("I", "F")):  # 16 bit and float: Pillow would clip instead of scaling
        values = np.asarray(picture, dtype=np.float64)
        spread = 65535 if picture.mode.startswith("I") else max(float(values.max()), 1e-9)
        picture = Image.fromarray((np.clip(values / spread, 0, 1) * 255).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, (BACKGROUND,) * 3), layer)
    return picture.convert("RGB")
