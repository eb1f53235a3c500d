"""How fast the loader is beside raw decoding and plain webdataset, and what planning, reopening and memory cost.

All ways of reading take turns on the same shards in one process and one thread. The figures that count are ratios
within a turn, of which median and quartiles are printed: the machine's own speed, which changes by the second, drops
out. Run with ``make bench``, or ``python benchmarks/data_loading.py``; needs decord. With ``VDM_VIDEOS=FOLDER`` clips
of that folder's videos are read as well as made-up ones.

Longer than other files, as all ways of reading share the shards and the turns, which makes their ratios meaningful.
"""

import io
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import torch
import webdataset
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8
from safetensors.torch import load, save

from data_pipelines.clips import VideoFile
from data_pipelines.encode.h264 import encode_h264
from data_pipelines.encode.shard_writer import ShardWriter
from data_pipelines.settings import ClipSettings
from data_pipelines.sources import SourceError
from vdm.data.clips import ClipSampling
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.order import ShuffledOrder
from vdm.data.sample_table import SampleTable
from vdm.data.shard_table import ShardTable
from vdm.data.shards import Kind, Member, SampleEntry, Shape, ShardEntry, StoredLatents, checksum, shard_of
from vdm.data.sidecars import parse_samples, sidecar_name, write_samples
from vdm.data.video_listing import list_videos
from vdm.types import ClipBatch

NUM_ROUNDS = 9
FPS = 8.0
NUM_CLIPS = 96
"""Read in each round; all of a set of videos, since a shuffle buffer that fills or drains would make parts of an epoch
cheaper or dearer."""
NUM_LATENTS = 1024
"""As ``NUM_CLIPS``, of latents: fewer would make shuffling, which is done a window of up to 1024 at a time, dearer."""
BATCH_SIZE = 16
SHAPE: Shape = (16, 128, 128)
SHAPES: tuple[tuple[Shape, Shape], ...] = (
    ((8, 32, 32), (8, 32, 32)),
    ((16, 64, 64), (16, 64, 64)),
    (SHAPE, SHAPE),
    ((16, 256, 256), (16, 256, 256)),
    ((48, 256, 256), SHAPE),
)
"""As clips are stored, and as they come out."""
MAX_CLIPS_PER_VIDEO = 4
LATENT_SHAPE = (4, 16, 32, 32)
FAR = 10_000_000


def made_up_clips(shape: Shape) -> Iterator[UInt8[np.ndarray, "t h w c"]]:
    """Yield clips that move and have noise."""
    generator = np.random.default_rng(0)
    t, h, w = shape
    rows, columns = np.mgrid[:h, :w]
    for clip in count():
        frames = [np.sin((rows + 3 * i) / 9 + clip) * np.cos((columns - 2 * i) / 7) for i in range(t)]
        noise = generator.normal(0, 4, (t, h, w, 3))
        yield (128 + 80 * np.stack(frames)[..., None] + noise).clip(0, 255).astype(np.uint8)


def clips_of_videos(folder: Path, shape: Shape) -> Iterator[UInt8[np.ndarray, "t h w c"]]:
    """Yield the first clips of each video of a folder, over and over."""
    t, h, w = shape
    settings = ClipSettings(t, FPS, h, w, t / FPS)
    videos = [VideoFile(path, path.name, "", settings) for path in list_videos(folder, ())[0]]
    while True:
        for video in videos:
            with suppress(SourceError):  # some are damaged or too short
                yield from (clip.video for clip in islice(video.clips(), MAX_CLIPS_PER_VIDEO))


def write_shards(
    folder: Path, shape: Shape, clips: Iterator[UInt8[np.ndarray, "t h w c"]] | None, num_clips: int = NUM_CLIPS
) -> Path:
    """Write 4 shards of clips; None writes noise in the shape of latents instead."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    shards = []
    for number in range(4):
        with ShardWriter(folder / f"train-{number:06d}.tar", durable=False) as writer:
            for clip in range(num_clips // 4):
                members = {"json": b'{"caption": "a pattern", "label": null, "fps": 8.0}'}
                if clips is not None:
                    members["mp4"] = encode_h264(next(clips), FPS)
                else:
                    latents = torch.from_numpy(generator.normal(0, 1, LATENT_SHAPE)).half()
                    members["latents.safetensors"] = save({"latents": latents})
                writer.add(f"{number}-{clip}", shape, members)
        assert writer.entry is not None
        shards.append(writer.entry)
    stored = None if clips is not None else StoredLatents({"name": "noise"}, {shape: LATENT_SHAPE})
    write_index(folder, ShardIndex.of({"train": shards}, fps=FPS, latents=stored))
    return folder


def decode(data: bytes, num_frames: int, size: tuple[int, int]) -> torch.Tensor:
    """Decode frames from a random one on, scaled as the others do, with as little as possible around PyAV."""
    reformatter = VideoReformatter()
    options: dict[str, Any] = {"format": "rgb24", "interpolation": Interpolation.BICUBIC, "threads": 1}
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        assert stream.average_rate is not None
        assert stream.time_base is not None
        start = random.randint(0, stream.frames - num_frames)
        first = (stream.start_time or 0) + round(start / stream.average_rate / stream.time_base)
        container.seek(first, stream=stream)
        wanted = (frame for frame in container.decode(stream) if frame.pts is not None and frame.pts >= first)
        frames = [
            reformatter.reformat(frame, *size[::-1], **options).to_ndarray() for frame in islice(wanted, num_frames)
        ]
    return torch.from_numpy(np.stack(frames))


def decode_by_decord(data: bytes, num_frames: int, size: tuple[int, int]) -> torch.Tensor:
    """Decode frames from a random one on, scaled, as decord's documentation does; in one thread, like the others."""
    reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), width=size[1], height=size[0], num_threads=1)
    start = random.randint(0, len(reader) - num_frames)
    return torch.from_numpy(reader.get_batch(range(start, start + num_frames)).asnumpy())


def videos_in_memory(path: Path) -> list[bytes]:
    """Return the bytes of the first clips of a set."""
    samples = webdataset.WebDataset(_urls(path), shardshuffle=False, empty_check=False)
    return [sample["mp4"] for sample in islice(samples, NUM_CLIPS)]


def _urls(path: Path) -> list[str]:
    return [str(path / shard.name) for shard in read_index(path).splits["train"]]


def from_loader(path: Path, position: int = 0, **settings: Any) -> Iterator[ClipBatch]:
    """Read batches through this project's loader."""
    data = ClipDataModule(path, BATCH_SIZE, BATCH_SIZE, num_workers=0, max_validation_clips=0, **settings)
    data.position = position - position % BATCH_SIZE
    return iter(data.train_dataloader())


def from_webdataset(path: Path, extension: str, decode: Callable[[bytes], object]) -> Iterator[object]:
    """Read batches through plain webdataset, as its documentation suggests."""
    urls, handler = _urls(path), webdataset.handle_extension(extension, decode)
    samples = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).repeat().shuffle(100)
    batches = samples.decode(handler).to_tuple(extension, "json").batched(BATCH_SIZE)
    return iter(webdataset.WebLoader(batches, batch_size=None, num_workers=0))


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the time of one call."""
    start = clock()
    function()
    return clock() - start


class Rates:
    """Clips a second of processor time, of each way of reading in each round.

    Args:
        ways: By name, what reads ``num_clips``.
        num_clips: Number of clips that are read in a round.
    """

    def __init__(self, ways: dict[str, Callable[[], object]], num_clips: int) -> None:
        times = {name: [] for name in ways}
        for _ in range(NUM_ROUNDS):
            for name, read in ways.items():
                times[name].append(seconds(read, time.process_time))
        self._rates = {name: num_clips / np.array(found) for name, found in times.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name} {np.median(rates):.0f}" for name, rates in self._rates.items())

    def ratio(self, name: str, other: str) -> str:
        """Return how much faster a way is than another, at its median and between its quartiles."""
        low, median, high = np.quantile(self._rates[name] / self._rates[other], (0.25, 0.5, 0.75))
        return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def batches_of(read: Iterator[object], num_clips: int = NUM_CLIPS) -> Callable[[], object]:
    """Return a way to read a number of clips, of an iteration that has begun."""
    return lambda: deque(islice(read, num_clips // BATCH_SIZE), maxlen=0)


def compare_clips(path: Path, stored: Shape, shape: Shape) -> None:
    """Print clips a second of raw decoding, of this loader and of plain webdataset."""
    videos, (t, *size) = videos_in_memory(path), shape
    sampling = ClipSampling(None if stored == shape else [shape])
    found = Rates(
        {
            "raw PyAV": lambda: [decode(video, t, (size[0], size[1])) for video in videos],
            "this loader": batches_of(from_loader(path, clips=sampling)),
            "webdataset + decord": batches_of(
                from_webdataset(path, "mp4", lambda data: decode_by_decord(data, t, (size[0], size[1])))
            ),
        },
        NUM_CLIPS,
    )
    print(f"clips of {_name(shape)} out of {_name(stored)}, a second on one core: {found}")
    print(f"  this loader over raw PyAV {found.ratio('this loader', 'raw PyAV')}")
    print(f"  this loader over webdataset + decord {found.ratio('this loader', 'webdataset + decord')}")


def compare_latents(path: Path) -> None:
    """Print clips a second of latents through this loader and through plain webdataset."""
    theirs = from_webdataset(path, "latents.safetensors", lambda data: load(data)["latents"])
    found = Rates(
        {
            "this loader": batches_of(from_loader(path, stored_latents=True), NUM_LATENTS),
            "webdataset": batches_of(theirs, NUM_LATENTS),
        },
        NUM_LATENTS,
    )
    print(f"latents of {_name(LATENT_SHAPE)} in fp16, a second on one core: {found}")
    print(f"  this loader over webdataset {found.ratio('this loader', 'webdataset')}")


def _name(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


FIRST_BATCHES = """
import sys, time
from vdm.data.datamodule import ClipDataModule

for position in (0, 0, {far}):
    data = ClipDataModule(sys.argv[1], 16, 16, num_workers=2, max_validation_clips=0)
    data.position = position
    data.check()
    start = time.perf_counter()
    next(iter(data.train_dataloader()))
    print(f"first batch with 2 workers, at sample {{position}}: {{time.perf_counter() - start:.2f}} s")
    data.close()
"""
"""The first time includes the server from which workers are forked, and its imports. It is a program of its own, since
workers import the main module, and this one's imports are slow."""


def compare_positions(path: Path) -> None:
    """Print the time to the first batch at the start and at sample ten million."""
    near = min(seconds(lambda: next(from_loader(path))) for _ in range(NUM_ROUNDS))
    far = min(seconds(lambda: next(from_loader(path, FAR))) for _ in range(NUM_ROUNDS))
    print(f"first batch without workers: at sample 0 {near * 1e3:.1f} ms, at sample 10^7 {far * 1e3:.1f} ms")
    program = FIRST_BATCHES.format(far=FAR - FAR % BATCH_SIZE)
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def watch_memory(path: Path) -> None:
    """Print how much a process grows while it reads epochs."""
    loader = from_loader(path)
    used = []
    for _ in range(6):
        deque(islice(loader, NUM_CLIPS // BATCH_SIZE), maxlen=0)  # an epoch
        used.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    print("resident MiB after each epoch: " + ", ".join(f"{mib:.0f}" for mib in used))


PLANNING = """
import re, sys, time
from pathlib import Path
from vdm.data.datamodule import ClipDataModule
from vdm.data.mixing import MixedOrder

def mebibytes():  # at its peak; what getrusage tells begins with the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before, start = mebibytes(), time.perf_counter()
data = ClipDataModule(sys.argv[1], 4096, 1, max_validation_clips=0, check_shards=False)
data.check()
order = MixedOrder(0, data.training.buckets, [one.weight for one in data.sets], 4096, 64, 1024)
for position in range(4095, 4096 * 64, 4096):  # the first 64 samples of the last rank
    order.locate(position)
seconds, grown = time.perf_counter() - start, mebibytes() - before
print(f"planning {data.num_train_samples:,} samples in 10^6 shards from the index on: {seconds:.2f} s, {grown:.0f} MiB")
"""
"""A program of its own, as memory is measured at its peak and above the imports."""


def plan_a_large_set(folder: Path) -> None:
    """Print what a rank of 4,096 spends on reading an index of a million shards and finding its own first samples."""
    folder.mkdir()
    kinds, num_at_once = {Kind((16, 256, 256)): 1000}, 1000
    digests = [checksum(str(number).encode()) for number in range(1_000_000)]
    tables = [
        ShardTable.of(
            ShardEntry(f"train-{number:06d}.tar", 1 << 30, digests[number], kinds, digests[-1 - number])
            for number in range(first, first + num_at_once)
        )
        for first in range(0, len(digests), num_at_once)
    ]
    write_index(folder, ShardIndex({"train": ShardTable.joined(tables)}, fps=FPS))
    subprocess.run([sys.executable, "-c", PLANNING, str(folder)], check=True)


def parse_a_large_sidecar() -> None:
    """Print the time to parse the sidecar of a shard of 10,000 samples, as others write them."""
    samples = [
        SampleEntry(
            f"video-{number:08d}",
            SHAPE,
            {
                extension: Member(3000 * number + 1000 * place, 900, checksum(f"{number} {extension}".encode()))
                for place, extension in enumerate(("json", "latents.safetensors", "mp4"))
            },
        )
        for number in range(10_000)
    ]
    shard = shard_of("train-000000.tar", 1 << 30, checksum(b""), samples)
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder), shard.name, samples, durable=False)
        data = (Path(folder) / sidecar_name(shard.name)).read_bytes()
    parse = min(seconds(lambda: SampleTable(parse_samples(shard.name, data, shard))) for _ in range(NUM_ROUNDS))
    print(f"sidecar of 10,000 samples of three files: {parse:.2f} s")


def measure_mixing() -> None:
    """Print how unevenly classes come in sets sorted by class; 1 is what independent draws give."""
    num_classes = 10
    for num_shards, shard_size, num_streams, window in (
        *((num_shards, size, 64, 1024) for num_shards, size in ((200, 100), (20, 1000), (2, 1000), (1, 640))),
        *((200, 100, num_streams, window) for num_streams, window in ((16, 256), (1, 1024))),
    ):
        order = ShuffledOrder(0, (shard_size,) * num_shards, num_streams, window)
        n, num_epochs = num_shards * shard_size, 5
        places = [order.locate(p) for p in range(num_epochs * n)]
        classes = torch.tensor([(p.shard * shard_size + p.sample) * num_classes // n for p in places])
        ratios = []
        for span in (span for span in (16, 256, 2048) if span < n):
            spans = classes.view(num_epochs, n)[:, : n // span * span].reshape(-1, span)
            counts = torch.nn.functional.one_hot(spans, num_classes).sum(1)
            chi_square = ((counts - span / num_classes) ** 2 * num_classes / span).sum(1).mean()
            ratios.append(float(chi_square) / (num_classes - 1) / (1 - (span - 1) / (n - 1)))
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        name = f"{num_shards} shards of {shard_size}, {num_streams} streams, windows of {window}"
        print(f"unevenness of spans of 16, 256, 2048, {name}: {shown}")


def main() -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plan_a_large_set(root / "large")
        parse_a_large_sidecar()
        small = write_shards(root / "small", SHAPE, made_up_clips(SHAPE))
        watch_memory(small)
        compare_positions(small)
        compare_latents(write_shards(root / "latents", (16, 256, 256), None, NUM_LATENTS))
        for stored, shape in SHAPES:
            print("made up: ", end="")
            name = f"{_name(stored)} to {_name(shape)}"
            compare_clips(write_shards(root / name, stored, made_up_clips(stored)), stored, shape)
            if videos := os.environ.get("VDM_VIDEOS"):
                print("real: ", end="")
                clips = clips_of_videos(Path(videos), stored)
                compare_clips(write_shards(root / f"real {name}", stored, clips), stored, shape)
    measure_mixing()


if __name__ == "__main__":
    main()
