"""Decoding of clips and pictures; only the frames that are used are decoded and converted."""

import io
import struct
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import av
import av.error
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from einops import rearrange
from jaxtyping import Int, UInt8
from PIL.Image import DecompressionBombError
from torch import Tensor

from vdm.data.clips import Cut
from vdm.data.containers import TooLargeError, bound_pixels, clip_format, open_picture, open_video
from vdm.data.frames import colorspace_of, film_of, opaque, pixel_aspect, rgb_picture, square_size
from vdm.data.hdr_frames import transfer_of
from vdm.data.mp4_tables import ImplausibleHeaderError
from vdm.data.scaling import RGBScaler
from vdm.data.shards import Shape

_PROBING = {"analyzeduration": "1", "probesize": "32"}
_STREAM_PROBING = {"skip_frame": "all"}
"""Options for opening a file and its streams: FFmpeg would otherwise decode a part of it to learn what the header of an
mp4 already says."""


PICTURE_ERRORS = (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, struct.error, DecompressionBombError)
"""What Pillow raises for bytes that it can't read as a picture."""


class UndecodableClipError(ValueError):
    """Bytes that are not the clip that the index describes."""


def empty_clips(num_clips: int, num_frames: int, height: int, width: int) -> UInt8[Tensor, "b c t h w"]:
    """Return uninitialized memory for clips, laid out as ``b t h w c``, the layout of decoders and networks."""
    # numpy asks the system for huge pages, which torch does not: filling fresh memory takes a quarter of the time.
    pixels = np.empty((num_clips, num_frames, height, width, 3), dtype=np.uint8)
    return rearrange(torch.from_numpy(pixels), "b t h w c -> b c t h w")


def decode_clip(
    data: bytes | memoryview, shape: Shape, cut: Cut | None = None, out: UInt8[Tensor, "c t h w"] | None = None
) -> UInt8[Tensor, "c t h w"]:
    """Decode a clip.

    Args:
        data: An mp4, MOV or WebM file.
        shape: What the clip must be: frames, rows, columns.
        cut: Which part to take; None takes all.
        out: Where to write the pixels, one of ``empty_clips``; None allocates memory.

    Raises:
        UndecodableClipError: If it is damaged or of another shape.
    """
    cut = cut or Cut.whole(shape)
    clip = empty_clips(1, len(cut.frames), *cut.size)[0] if out is None else out
    pixels, num_frames = rearrange(clip, "c t h w -> t h w c").numpy(), 0
    for frame in _decode(data, shape, cut):
        pixels[num_frames] = frame
        num_frames += 1
    if num_frames != len(cut.frames):
        raise UndecodableClipError(f"{num_frames} frames decode where {len(cut.frames)} are expected")
    return clip


def check_clip(source: io.BufferedIOBase, shape: Shape) -> None:
    """Check that a whole clip decodes, without keeping its packets and frames.

    Args:
        source: An mp4, MOV or WebM file.
        shape: What the clip must be: frames, rows, columns.

    Raises:
        UndecodableClipError: If it is damaged or of another shape.
    """
    with _opened(source) as (container, stream):
        times = unique_times(container, stream)
    if len(times) != shape[0]:
        raise UndecodableClipError(f"{len(times)} frames decode where the index records {shape[0]}")
    source.seek(0)
    is_missing = np.ones(len(times), dtype=bool)
    with _opened(source) as (container, stream):
        for frame in container.decode(stream):
            _check_frame(frame, stream, shape)
            place = len(times) if frame.pts is None else int(np.searchsorted(times, frame.pts))
            if place < len(times) and times[place] == frame.pts:
                is_missing[place] = False
    if is_missing.any():
        raise UndecodableClipError(f"{len(times) - is_missing.sum()} frames decode where {shape[0]} are expected")


def decode_picture(
    data: bytes | memoryview, shape: Shape, cut: Cut | None = None, out: UInt8[Tensor, "c 1 h w"] | None = None
) -> UInt8[Tensor, "c 1 h w"]:
    """Decode a still picture, a clip of one frame; arguments and errors are those of ``decode_clip``."""
    cut = cut or Cut.whole(shape)
    try:
        with open_picture(data) as image:
            _check_size((image.height, image.width), shape)
            pixels = np.asarray(rgb_picture(image))
    except UndecodableClipError:
        raise
    except PICTURE_ERRORS as error:
        raise UndecodableClipError(f"does not decode: {error}") from error
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    clip = empty_clips(1, 1, *cut.size)[0] if out is None else out
    rearrange(clip, "c 1 h w -> h w c").numpy()[:] = _FrameCutter(cut)(frame)
    return clip


def _decode(data: bytes | memoryview, shape: Shape, cut: Cut) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yield the wanted frames of a clip."""
    cut_frame = _FrameCutter(cut)
    with _opened(io.BytesIO(data)) as (container, stream):
        for frame in _frames(container, stream, shape, cut.frames):
            yield cut_frame(frame)


@contextmanager
def _opened(source: io.BufferedIOBase) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open the video of a clip; any error, here or in the caller's decoding, becomes an ``UndecodableClipError``.

    One thread decodes and one converts: FFmpeg's default, a thread for each core, costs small frames up to four times
    as much, and the loader has several workers already.
    """
    try:
        with open_video(source, clip_format(source), _PROBING, _STREAM_PROBING) as container:
            stream = film_of(container)
            if stream is None:
                raise UndecodableClipError("holds no video")
            stream.thread_type = "NONE"
            bound_pixels(stream)
            yield container, stream
    except av.error.FFmpegError as error:
        raise UndecodableClipError(f"does not decode: {error.strerror}") from error
    except (ImplausibleHeaderError, TooLargeError) as error:
        raise UndecodableClipError(str(error)) from error
    except (UndecodableClipError, MemoryError):
        raise
    except Exception as error:  # a malformed file may make the decoder raise anything
        raise UndecodableClipError(f"does not decode: {type(error).__name__}: {error}") from error


def _frames(
    container: InputContainer, stream: av.VideoStream, shape: Shape, frames: Sequence[int]
) -> Iterator[av.VideoFrame]:
    """Yield frames by their numbers, in display order.

    Decoding begins at the nearest key frame, and skips frames that are neither wanted nor referred to by others.
    """
    stream.codec_context.open()  # dav1d keeps the value that skip_frame has now
    # The last, empty packet makes the decoder return the frames that it still buffers.
    packets = list(container.demux(stream))
    numbers = {time: number for number, time in enumerate(shown_times(packets))}
    if len(numbers) != shape[0]:
        raise UndecodableClipError(f"{len(numbers)} frames decode where the index records {shape[0]}")
    wanted = set(frames)
    for packet in packets[_key_packet(packets, numbers, frames[0]) :]:
        is_wanted = packet.pts is None or numbers.get(packet.pts, -1) in wanted
        stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        for frame in packet.decode():
            _check_frame(frame, stream, shape)
            number = -1 if frame.pts is None else numbers.get(frame.pts, -1)
            if number in wanted:
                wanted.remove(number)  # some files have two frames of one time, of which one is shown
                yield frame
        if not wanted:
            return


def _check_frame(frame: av.VideoFrame, stream: av.VideoStream, shape: Shape) -> None:
    if frame.is_corrupt:  # FFmpeg conceals missing parts, also those of reference frames
        raise UndecodableClipError("is damaged: a frame decodes in part only")
    # Older indexes record the coded size of clips whose pixels are not square; such clips are read at that size.
    if (frame.height, frame.width) != shape[1:]:
        _check_size(square_size(frame, pixel_aspect(stream)), shape)


def unique_times(container: InputContainer, stream: av.VideoStream) -> Int[np.ndarray, " t"]:
    """Return the time of each frame of a stream that is shown, sorted, in its unit; its packets are not kept."""
    times = array("q")
    for packet in container.demux(stream):
        if packet.pts is not None and not packet.is_discard:
            times.append(packet.pts)
    return np.unique(np.frombuffer(times, dtype=np.int64)) if times else np.zeros(0, np.int64)


def shown_times(packets: list[Packet]) -> list[int]:
    """Return the time of each frame that is shown, sorted, in the stream's unit."""
    return sorted({packet.pts for packet in packets if packet.pts is not None and not packet.is_discard})


def _key_packet(packets: list[Packet], numbers: dict[int, int], first: int) -> int:
    """Return the last packet from which decoding reaches frame number ``first``."""
    start = 0
    for place, packet in enumerate(packets):
        if packet.is_keyframe and packet.pts is not None and numbers.get(packet.pts, first + 1) <= first:
            start = place
    return start


def _check_size(size: tuple[int, int], shape: Shape) -> None:
    if size != shape[1:]:
        raise UndecodableClipError(
            f"a frame has {size[0]}x{size[1]} pixels where the index records {shape[1]}x{shape[2]}"
        )


class _FrameCutter:
    """Scales, crops and flips frames."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self._scale, self._convert = RGBScaler(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w c"]:
        """Return the cut of a frame."""
        cut = self.cut
        if cut.scaled == (frame.height, frame.width) and transfer_of(frame) is None:
            frame = opaque(frame)
            colorspace = colorspace_of(frame)
            pixels = self._convert.reformat(frame, format="rgb24", src_colorspace=colorspace, threads=1).to_ndarray()
        else:
            pixels = self._scale(frame, *cut.scaled)
        rows, columns = cut.size
        part = pixels[cut.top : cut.top + rows, cut.left : cut.left + columns]
        return part[:, ::-1] if cut.flipped else part
