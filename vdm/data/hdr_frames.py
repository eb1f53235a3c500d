"""Tone mapping of decoded frames from high to standard dynamic range; ``vdm/data/hdr.py`` has the formulas.

Frames are scaled first, so that the cost of mapping depends on the output size.
"""

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from jaxtyping import Integer, UInt8

from vdm.data import hdr
from vdm.data.hdr import Transfer

_TRANSFERS: dict[int, Transfer] = {16: "PQ", 18: "HLG"}
_PRIMARIES = {1: hdr.BT709, 12: hdr.P3}
_LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}
"""The keys of these tables are FFmpeg's numbers, those of ITU-T H.273; BT.2020 is assumed for other numbers."""
_UNREAD_MATRICES = {10: "BT.2020 of constant luminance", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-R", 17: "YCgCo-R"}
_PIXELS_AT_ONCE = 1 << 16
"""Bounds memory, and keeps the working set in the processor's cache."""


class UnreadColorsError(ValueError):
    """A frame of high dynamic range with an unsupported colour matrix."""


def transfer_of(frame: av.VideoFrame) -> Transfer | None:
    """Return the HDR transfer function of a frame; None if it has standard range, or does not say."""
    return _TRANSFERS.get(int(frame.color_trc))


def check_colors(frame: av.VideoFrame) -> None:
    """Refuse a frame of high dynamic range that can't be mapped.

    Raises:
        UnreadColorsError: If so.
    """
    if transfer_of(frame) is not None and (name := _UNREAD_MATRICES.get(int(frame.colorspace))) is not None:
        raise UnreadColorsError(f"its colours are coded as {name}, which is not read; encode it with BT.2020's matrix")


class SDRMapper:
    """Scales frames of high dynamic range and maps them to standard range; see ``RGBScaler``."""

    def __init__(self, interpolation: Interpolation) -> None:
        self._scaler, self._interpolation = VideoReformatter(), interpolation

    def __call__(
        self, frame: av.VideoFrame, height: int, width: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 1"] | None]:
        """Return the frame in another size, and its alpha, if it has any.

        Raises:
            UnreadColorsError: As for ``check_colors``.
        """
        check_colors(frame)
        transfer = transfer_of(frame)
        assert transfer is not None, "others need no mapping"
        codes, depth = self._codes(frame, height, width)
        is_rgb = frame.format.is_rgb
        is_full_range = is_rgb or frame.color_range == ColorRange.JPEG
        primaries = _PRIMARIES.get(int(frame.color_primaries), hdr.BT2020)
        pixels = np.empty((height * width, 3), np.uint8)
        for start in range(0, height * width, _PIXELS_AT_ONCE):
            part = slice(start, start + _PIXELS_AT_ONCE)
            signal = hdr.normalized(codes[:3, part], depth, is_full_range, is_rgb)
            if not is_rgb:
                signal = hdr.yuv_to_rgb(signal, *_LUMA.get(int(frame.colorspace), hdr.LUMA_OF_BT2020[::2]))
            pixels[part] = np.rint(255 * hdr.to_sdr(signal, transfer, primaries)).T
        alpha = (codes[3] >> (depth - 8)).astype(np.uint8).reshape(height, width, 1) if len(codes) == 4 else None
        return pixels.reshape(height, width, 3), alpha

    def _codes(self, frame: av.VideoFrame, height: int, width: int) -> tuple[Integer[np.ndarray, "c n"], int]:
        """Return the integer codes of the pixels, at full bit depth and chroma resolution, and the depth."""
        name, depth = _full_format(frame)
        same_range = ColorRange(frame.color_range)
        planar = self._scaler.reformat(
            frame,
            width,
            height,
            name,
            src_color_range=same_range,
            dst_color_range=same_range,
            interpolation=self._interpolation,
            threads=1,
        )
        planes = [_plane(plane, depth) for plane in planar.planes]
        if frame.format.is_rgb:  # planes are G, B, R
            planes[:3] = planes[2], planes[0], planes[1]
        return np.stack([plane.reshape(-1) for plane in planes]), depth


def _full_format(frame: av.VideoFrame) -> tuple[str, int]:
    """Return the planar format without chroma subsampling that holds a frame, and its bit depth."""
    components = frame.format.components
    has_alpha = any(component.is_alpha for component in components)
    bits = max(component.bits for component in components)
    depth = next((known for known in (8, 10, 12) if known >= bits), 16)
    opaque, transparent = ("gbrp", "gbrap") if frame.format.is_rgb else ("yuv444p", "yuva444p")
    family = transparent if has_alpha else opaque
    return family + ("" if depth == 8 else f"{depth}le"), depth


def _plane(plane: VideoPlane, depth: int) -> Integer[np.ndarray, "h w"]:
    rows = np.frombuffer(memoryview(plane), np.uint8 if depth == 8 else np.dtype("<u2"))
    return rows.reshape(plane.height, -1)[:, : plane.width]
