"""A clip as an mp4 file in memory."""

import io
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

CRF = 15
"""Constant rate factor of x264: 0 is lossless, 18 visually lossless, 51 the worst."""

KEY_FRAME_EVERY = 16
"""Maximum number of frames from one key frame to the next, since reading a part of a clip starts at a key frame.

Real clips of 48 frames grow by a fifth, and reading 16 of their frames takes five sixths of the time.
"""

X264 = f"cpu-independent=1:keyint={KEY_FRAME_EVERY}:b-pyramid=none:no-cabac=1:no-deblock=1"
"""Options of x264. ``cpu-independent`` makes the bytes reproducible: without it, the motion estimation of B-frames
depends on the processor and on previous content of the memory.

The last three speed up decoding, which training does often. With CAVLC as entropy code (``no-cabac``) clips decode in
two thirds of the time, and are a twentieth larger. Without the deblocking filter they decode in seven eighths of the
time; at this quality PSNR falls by 0.02 dB on the mean of real clips, by 0.1 dB at most. If no frame refers to a
B-frame (``b-pyramid=none``), seeking skips all B-frames: reading 16 of 48 frames takes 93% of the time.
"""

SMPTE170M = 6
"""Tag of the matrix of BT.601, with which FFmpeg converts RGB; players would assume another one for large clips."""


def encode_h264(video: UInt8[np.ndarray, "t h w c"], fps: float) -> bytes:
    """Compress an RGB clip of even height and width; the same clip gives the same bytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        stream.codec_context.colorspace = SMPTE170M
        stream.thread_count = 1  # other cores encode other files, and threads would make the bytes vary
        stream.options = {"crf": str(CRF), "preset": "fast", "x264-params": X264}
        for picture in video:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        container.mux(stream.encode())
    return file.getvalue()
