"""Writing of videos as mp4 and gif, and of grids of several as mp4, gif and png."""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vdm.files import appearing
from vdm.generation.captions import caption_strips
from vdm.text import file_stem

DEFAULT_FPS = 8.0
"""Frames per second of videos of a model whose training clips had no common rate."""
GRID_GAP = 2
"""Pixels between the videos of a grid."""
GRID_SUFFIXES = ("mp4", "gif", "png")
"""Suffixes of the files of a grid."""
GRID_NAME = re.compile(rf"grid(-(\d{{4,12}}))?\.({'|'.join(GRID_SUFFIXES)})")
"""Name of a grid's file; group 2 is the number of its first video, if that is not 0."""
MIN_GRID = 256
"""Pixels of a grid's longer side, at least; small videos are enlarged."""
MIN_CAPTIONED = 144
"""Pixels of the width of a video with a caption, at least."""
_LETTERS = 12
"""Height of a caption's letters in pixels, at least."""
_X264 = {"crf": "12", "x264-params": "cpu-independent=1"}
"""Options of x264. Without ``cpu-independent``, the motion estimation of B-frames depends on the processor and on
previous content of the memory, so that the same frames give different files now and then.
"""


def write_mp4(
    path: Path, video: UInt8[Tensor, "c t h w"], fps: float, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a video as H.264 that every player supports: even height and width, chroma at half resolution.

    Args:
        path: File to write; its folder must exist.
        video: RGB frames.
        fps: Frames per second.
        metadata: Tags of the mp4 file: ``title``, ``comment`` ...
    """
    height, width = video.shape[-2:]
    padded = torch.nn.functional.pad(video.float(), (0, width % 2, 0, height % 2), mode="replicate").byte()
    frames = rearrange(padded.cpu(), "c t h w -> t h w c").numpy()
    with appearing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_X264)
        stream.codec_context.thread_count = 1  # threads would make the bytes vary, too
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def grid(videos: Sequence[UInt8[Tensor, "c t h w"]], num_columns: int | None = None) -> UInt8[Tensor, "c t h2 w2"]:
    """Arrange videos of one size in a grid, nearly square unless ``num_columns`` is given."""
    columns = num_columns or math.ceil(math.sqrt(len(videos)))
    rows = math.ceil(len(videos) / columns)
    channels, frames, height, width = videos[0].shape
    canvas = torch.full(
        (channels, frames, rows * (height + GRID_GAP) - GRID_GAP, columns * (width + GRID_GAP) - GRID_GAP),
        128,
        dtype=torch.uint8,
    )
    for index, video in enumerate(videos):
        top, left = (index // columns) * (height + GRID_GAP), (index % columns) * (width + GRID_GAP)
        canvas[:, :, top : top + height, left : left + width] = video
    return canvas


def enlarged(video: UInt8[Tensor, "c t h w"], min_size: int = MIN_GRID) -> UInt8[Tensor, "c t h2 w2"]:
    """Enlarge a small video by a whole factor, with sharp pixels, until its longer side has ``min_size`` pixels."""
    return _scaled(video, math.ceil(min_size / max(video.shape[-2:])))


def _scaled(video: UInt8[Tensor, "c t h w"], factor: int) -> UInt8[Tensor, "c t h2 w2"]:
    return video.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def captioned_grid(
    videos: Sequence[UInt8[Tensor, "c t h w"]], captions: Sequence[str] = ()
) -> UInt8[Tensor, "c t h2 w2"]:
    """Arrange videos of one size in a grid, enlarged if they are small, each above its caption if it has one."""
    if not any(captions):
        return enlarged(grid(videos))
    columns = math.ceil(math.sqrt(len(videos)))
    factor = math.ceil(max(MIN_CAPTIONED, MIN_GRID / columns) / videos[0].shape[-1])
    large = [_scaled(video, factor) for video in videos]
    width = large[0].shape[-1]
    strips = caption_strips(captions, width, max(_LETTERS, width // 28), max_lines=3)
    return grid(
        [
            torch.cat([video, strip[:, None].expand(-1, video.shape[1], -1, -1).to(video.device)], dim=-2)
            for video, strip in zip(large, strips, strict=True)
        ]
    )


def write_film_strips(path: Path, videos: Sequence[UInt8[Tensor, "c t h w"]], captions: Sequence[str] = ()) -> None:
    """Write a png with one row for each video: its frames from left to right, above its caption if it has one."""
    rows = enlarged(grid([frame[:, None] for video in videos for frame in video.unbind(1)], videos[0].shape[1]), 768)
    picture = rows[:, 0]
    if any(captions):
        picture = _scaled(rows, math.ceil(MIN_CAPTIONED / rows.shape[-1]))[:, 0]
        factor = picture.shape[-2] // (len(videos) * (videos[0].shape[-2] + GRID_GAP) - GRID_GAP)
        height, step = (factor * (videos[0].shape[-2] + gap) for gap in (0, GRID_GAP))
        strips = [caption_strips([text], picture.shape[-1], _LETTERS + 2, max_lines=2)[0] for text in captions]
        parts = (
            (picture[:, number * step : number * step + height], strip.to(picture.device))
            for number, strip in enumerate(strips)
        )
        picture = torch.cat([part for pair in parts for part in pair], dim=-2)
    pixels = rearrange(picture, "c h w -> h w c").cpu().numpy()
    with appearing(path) as partial:
        Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG")


def write_gif(path: Path, video: UInt8[Tensor, "c t h w"], fps: float) -> None:
    """Write a video as an endless gif, for web pages."""
    pixels = rearrange(video, "c t h w -> t h w c").cpu().numpy()
    first, *others = [Image.fromarray(np.ascontiguousarray(frame)) for frame in pixels]
    with appearing(path) as partial:
        first.save(partial, format="GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


def write_grid(
    folder: Path,
    videos: Sequence[UInt8[Tensor, "c t h w"]],
    fps: float,
    captions: Sequence[str] = (),
    stem: str = "grid",
    metadata: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write all videos side by side as ``grid.mp4`` and ``grid.gif``, and as film strips in ``grid.png``.

    Args:
        folder: Created if it does not exist.
        videos: RGB, all of one size.
        fps: Frames per second.
        captions: Texts under the videos; none for no texts.
        stem: Name of the files.
        metadata: See ``write_mp4``.

    Returns:
        Paths of the mp4 and the png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mp4, gif, png = (folder / f"{stem}.{suffix}" for suffix in GRID_SUFFIXES)
    side_by_side = captioned_grid(videos, captions)
    write_mp4(mp4, side_by_side, fps, metadata)
    write_gif(gif, side_by_side, fps)
    write_film_strips(png, videos, captions)
    return mp4, png


def file_name(index: int, caption: str) -> str:
    """Return a file name: the number of a video and the beginning of its caption."""
    words = file_stem(caption, 60)
    return f"{index:04d}-{words}.mp4" if words else f"{index:04d}.mp4"
