"""Videos made for tests: lossless, so that every pixel of what is read back is known."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_pipelines.clips import VideoFile
from data_pipelines.settings import ClipSettings

CLIP = ClipSettings(num_frames=4, fps=8, height=16, width=16, stride_seconds=0.5)


def gray_frames(num_frames: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frame n is of the even gray 10 + 5 n."""
    return [np.full((height, width, 3), 10 + 5 * n, dtype=np.uint8) for n in range(num_frames)]


def gray_of(video: np.ndarray) -> list[int]:
    """Numbers of the frames of ``gray_frames`` that a clip shows."""
    return [round((float(frame.mean()) - 10) / 5) for frame in video]


def quadrants(height: int, width: int) -> np.ndarray:
    """A picture that looks different however it is turned: red, green / blue, white."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = 255, 0, 0
    picture[: height // 2, width // 2 :] = 0, 255, 0
    picture[height // 2 :, : width // 2] = 0, 0, 255
    picture[height // 2 :, width // 2 :] = 255
    return picture


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    times_ms: Sequence[int] | None = None,
    fps: int = 8,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    pixel_aspect: Fraction | None = None,
    title: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write frames at ``times_ms``, or evenly at ``fps``."""
    with av.open(path, "w", options=container_options or {}) as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = pix_fmt
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_h264(path: Path, frames: Sequence[np.ndarray], **options: str) -> Path:
    """Write an mp4 whose index stands first, so that it can be read as far as it goes."""
    return write_video(
        path,
        frames,
        codec="libx264",
        pix_fmt="yuv444p",
        options={"crf": "1", "g": "8", "sc_threshold": "0", **options},
        container_options={"movflags": "faststart"},
    )


def write_with_sound(
    path: Path, frames: Sequence[np.ndarray], sound_seconds: float, start_seconds: float = 0, fps: int = 8
) -> Path:
    """Write frames that begin at ``start_seconds``, and silence that begins at once."""
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "1"})
        video.height, video.width, _ = frames[0].shape
        video.pix_fmt = "yuv444p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number in range(round(sound_seconds * 10)):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts = 8000, 800 * number
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (start_seconds + number / fps)), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a second of silence."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Overwrite the matrix in an mp4's track header: column p, row q are shown at a p + c q, b p + d q."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    one, w = 1 << 16, 1 << 30
    data[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, w)
    path.write_bytes(data)


def video_file(path: Path, settings: ClipSettings = CLIP) -> VideoFile:
    """A file as a source of clips."""
    return VideoFile(path, path.name, "1", settings)
