"""Small shard sets for tests, written from the schema alone: clips of one colour that tells each from all others."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import UInt8
from torch import Tensor

from vdm.data.index import ShardIndex, write_index
from vdm.data.shard_table import ShardTable
from vdm.data.shards import Kind, Member, SampleEntry, Shape, ShardEntry, checksum, file_checksum, shard_of
from vdm.data.sidecars import write_samples

SHAPE: Shape = (4, 16, 32)
TRAIN_COUNTS = (5, 1, 9, 4, 4)
VALIDATION_COUNTS = (3, 4)


def table_of(shards: Sequence[Mapping[Shape, int]]) -> ShardTable:
    """Return the table of shards that exist nowhere, by what they have of each shape."""
    return ShardTable.of(
        ShardEntry(f"{number}.tar", 0, "00" * 16, {Kind(shape): count for shape, count in shapes.items()}, "00" * 16)
        for number, shapes in enumerate(shards)
    )


def key_of(split: str, number: int) -> str:
    return f"{split}-clip-{number:04d}"


def color_of(number: int, frame: int) -> tuple[int, int, int]:
    """Colour that tells a clip of the fixture and its frames from all others."""
    return (40 + 8 * (number % 24), 40 + 30 * frame, 128)


def encode_clip(number: int, shape: Shape = SHAPE) -> bytes:
    colors = torch.tensor([color_of(number, frame) for frame in range(shape[0])], dtype=torch.uint8)  # t c
    return encode_pixels(repeat(colors, "t c -> c t h w", h=shape[1], w=shape[2]))


def encode_pixels(video: UInt8[Tensor, "c t h w"]) -> bytes:
    """Encode a video of 8 frames a second, all but without loss, with a key frame every two frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1", "g": "2"})
        stream.width, stream.height, stream.pix_fmt = video.shape[3], video.shape[2], "yuv444p"
        for pixels in rearrange(video, "c t h w -> t h w c").contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_shard(folder: Path, name: str, split: str, numbers: range, shape: Shape = SHAPE) -> ShardEntry:
    """Write a shard of clips with its sidecar."""
    with tarfile.open(folder / name, "w") as tar:
        for number in numbers:
            metadata = {"caption": f"clip {number}", "label": number % 3 if number % 4 else None, "fps": 8.0}
            for extension, data in (("mp4", encode_clip(number, shape)), ("json", json.dumps(metadata).encode())):
                info = tarfile.TarInfo(f"{key_of(split, number)}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    samples = list_samples(folder / name, shape)
    write_samples(folder, name, samples)
    num_bytes, digest = (folder / name).stat().st_size, file_checksum(folder / name)
    return shard_of(name, num_bytes, digest, samples)


def list_samples(path: Path, shape: Shape) -> list[SampleEntry]:
    members: dict[str, dict[str, Member]] = {}
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        for info in tar:
            key, extension = info.name.rsplit(".", 1)
            data = content[info.offset_data : info.offset_data + info.size]
            members.setdefault(key, {})[extension] = Member(info.offset_data, info.size, checksum(data))
    return [SampleEntry(key, shape, parts) for key, parts in members.items()]


def write_set(
    folder: Path,
    counts: dict[str, tuple[int, ...]],
    shapes: tuple[Shape, ...] = (SHAPE,),
    labels: tuple[str, ...] = ("zero", "one", "two"),
) -> Path:
    """Write a shard set with ``counts`` samples in the shards of each split; shapes alternate between shards."""
    folder.mkdir(exist_ok=True)
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    for split, split_counts in counts.items():
        starts = np.cumsum([0, *split_counts]).tolist()
        splits[split] = tuple(
            write_shard(folder, f"{split}-{i:06d}.tar", split, range(start, start + n), shapes[i % len(shapes)])
            for i, (start, n) in enumerate(zip(starts, split_counts, strict=False))
        )
    write_index(folder, ShardIndex.of(splits, labels=labels, fps=8.0))
    return folder
