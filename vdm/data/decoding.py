"""From the bytes of an mp4 to pixels."""

import io
from collections.abc import Iterator

import av
import av.error
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vdm.data.shards import Shape


class UndecodableClipError(ValueError):
    """Bytes that are not the clip that the index describes."""


def decode_clip(data: bytes, shape: Shape) -> UInt8[Tensor, "c t h w"]:
    """Decode all frames of a clip.

    Args:
        data: An mp4 file.
        shape: What the clip must be: frames, rows, columns.

    Raises:
        UndecodableClipError: If it is damaged or of another shape.
    """
    frames = list(_decode(data, shape))
    if len(frames) != shape[0]:
        raise UndecodableClipError(f"{len(frames)} frames decode where the index records {shape[0]}")
    return rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> c t h w").contiguous()


def decode_frame(data: bytes, shape: Shape, frame: int) -> UInt8[Tensor, "c h w"]:
    """Decode one frame of a clip, 0 being the first, and what must be decoded before it.

    Raises:
        UndecodableClipError: If that part is damaged or of another shape.
    """
    for index, pixels in enumerate(_decode(data, shape)):
        if index == frame:
            return rearrange(torch.from_numpy(pixels), "h w c -> c h w").contiguous()
    raise UndecodableClipError(f"frame {frame} does not decode")


def _decode(data: bytes, shape: Shape) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yield the frames of a clip.

    One thread decodes and one converts: FFmpeg's default, a thread for each core, costs small frames up to four times
    as much, and the loader has several workers already.
    """
    reformatter = VideoReformatter()
    try:
        with av.open(io.BytesIO(data), "r", format="mp4", metadata_errors="ignore") as container:
            if not container.streams.video:
                raise UndecodableClipError("holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                if (frame.height, frame.width) != shape[1:]:
                    size = f"{frame.height}x{frame.width}"
                    raise UndecodableClipError(
                        f"a frame has {size} pixels where the index records {shape[1]}x{shape[2]}"
                    )
                yield reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    except av.error.FFmpegError as error:
        raise UndecodableClipError(f"does not decode: {error.strerror}") from error
