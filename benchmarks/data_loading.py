"""How near the loader comes to raw decoding, what reopening at a far position costs, and what planning costs.

All ways of reading take turns on the same shards in one process and one thread, and the figures are ratios: the
machine's own speed drops out. Run with ``make bench``, or ``python benchmarks/data_loading.py [FOLDER OF SHARDS]``;
without a folder it makes a set of moving patterns of 16 frames of 128x128 pixels.
"""

import io
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
import webdataset
from av.video.reformatter import VideoReformatter

from data_pipelines.encode.h264 import encode_h264
from data_pipelines.encode.shard_writer import ShardWriter
from vdm.data.datamodule import ClipDataModule
from vdm.data.mixing import Bucket, MixedOrder
from vdm.data.order import ShuffledOrder
from vdm.data.shards import ShardIndex, read_index, write_index

NUM_ROUNDS = 5
NUM_CLIPS = 96
BATCH_SIZE = 16
FAR = 10_000_000


def make_set(folder: Path) -> Path:
    """Write a set of 4 shards of 48 clips that move and have noise."""
    generator = np.random.default_rng(0)
    shards = []
    for number in range(4):
        with ShardWriter(folder / f"train-{number:06d}.tar", durable=False) as writer:
            for clip in range(48):
                rows, columns = np.mgrid[:128, :128]
                frames = [np.sin((rows + 3 * t) / 9 + clip) * np.cos((columns - 2 * t) / 7) for t in range(16)]
                noise = generator.normal(0, 4, (16, 128, 128, 3))
                video = (128 + 80 * np.stack(frames)[..., None] + noise).clip(0, 255).astype(np.uint8)
                metadata = b'{"caption": "a pattern", "label": null, "fps": 8.0}'
                writer.add(f"{number}-{clip}", (16, 128, 128), {"mp4": encode_h264(video, 8.0), "json": metadata})
        assert writer.entry is not None
        shards.append(writer.entry)
    write_index(folder, ShardIndex({"train": tuple(shards)}, fps=8.0))
    return folder


def decode(data: bytes) -> torch.Tensor:
    """Decode all frames of a clip with as little as possible around PyAV, in one thread."""
    reformatter = VideoReformatter()
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = (reformatter.reformat(f, format="rgb24", threads=1) for f in container.decode(video=0))
        return torch.from_numpy(np.stack([frame.to_ndarray() for frame in frames]))


def decode_plainly(data: bytes) -> torch.Tensor:
    """Decode all frames of a clip as PyAV's documentation does."""
    with av.open(io.BytesIO(data)) as container:
        return torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))


def videos_in_memory(path: Path) -> list[bytes]:
    """Return the bytes of the first clips of a set."""
    found: list[bytes] = []
    for shard in read_index(path).splits["train"]:
        with tarfile.open(path / shard.name) as tar:
            for info in tar:
                if info.name.endswith(".mp4"):
                    file = tar.extractfile(info)
                    assert file is not None
                    found.append(file.read())
                    if len(found) == NUM_CLIPS:
                        return found
    return found


def from_loader(path: Path, position: int = 0) -> Callable[[], Iterator[object]]:
    """Return a way to read batches through this project's loader, begun anew at each call."""

    def batches() -> Iterator[object]:
        data = ClipDataModule(path, BATCH_SIZE, BATCH_SIZE, num_workers=0, max_validation_clips=0)
        data.position = position - position % BATCH_SIZE
        return iter(data.train_dataloader())

    return batches


def from_webdataset(path: Path) -> Iterator[object]:
    """Read batches through plain webdataset, as its documentation suggests."""
    urls = [str(path / shard.name) for shard in read_index(path).splits["train"]]
    samples = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False).repeat().shuffle(100)
    return iter(samples.to_tuple("mp4", "json").map_tuple(decode_plainly, None).batched(BATCH_SIZE))


def seconds(function: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare_reading(path: Path) -> None:
    """Print clips a second of raw decoding, of this loader and of plain webdataset."""
    videos = videos_in_memory(path)
    num_batches = NUM_CLIPS // BATCH_SIZE
    ways: dict[str, Callable[[], object]] = {
        "raw PyAV decoding": lambda: [decode(video) for video in videos],
        "this loader": lambda: list(islice(from_loader(path)(), num_batches)),
        "webdataset + PyAV": lambda: list(islice(from_webdataset(path), num_batches)),
    }
    times = {name: [] for name in ways}
    for _ in range(NUM_ROUNDS):
        for name, read in ways.items():
            times[name].append(seconds(read))
    limit = len(videos) / min(times["raw PyAV decoding"])
    for name, found in times.items():
        rate = (len(videos) if name.startswith("raw") else num_batches * BATCH_SIZE) / min(found)
        print(f"{name:30}{rate:8.1f} clips/s on one core, {rate / limit:.0%} of raw decoding")


def compare_positions(path: Path) -> None:
    """Print the time to the first batch at the start and at sample ten million."""
    near = min(seconds(lambda: next(from_loader(path)())) for _ in range(NUM_ROUNDS))
    far = min(seconds(lambda: next(from_loader(path, FAR)())) for _ in range(NUM_ROUNDS))
    print(f"first batch at sample 0       {near * 1e3:8.1f} ms")
    print(f"first batch at sample 10^7    {far * 1e3:8.1f} ms, ratio {far / near:.2f}")


def plan_a_large_set() -> None:
    """Print what a rank of 4,096 spends on planning an epoch of a million shards, and on its own first batch."""
    num_shards, shard_size, shape = 1_000_000, 1000, (16, 256, 256)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def plan() -> None:
        bucket = Bucket(shape, {0: frozenset({shape})}, {0: (shard_size,) * num_shards})
        order = MixedOrder(0, [bucket], [Fraction(1)], 4096, num_streams=64, shuffle_window=1024)
        for position in range(4095, 4096 * 64, 4096):  # the first 64 samples of the last rank
            order.locate(position)

    time_taken = seconds(plan)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"planning 10^6 shards          {time_taken:8.2f} s, {grown:.0f} MiB")


def measure_mixing() -> None:
    """Print how unevenly classes come in a set sorted by class; 1 is what independent draws give."""
    num_classes, num_shards, shard_size = 10, 200, 100
    for num_streams, window in ((64, 1024), (16, 256), (1, 1024)):
        order = ShuffledOrder(0, (shard_size,) * num_shards, num_streams, window)
        n = num_shards * shard_size
        classes = torch.tensor([order.locate(p).shard * num_classes // num_shards for p in range(n)])
        ratios = []
        for span in (16, 256, 2048):
            counts = torch.nn.functional.one_hot(classes[: n // span * span].view(-1, span), num_classes).sum(1)
            chi_square = ((counts - span / num_classes) ** 2 * num_classes / span).sum(1).mean()
            ratios.append(float(chi_square) / (num_classes - 1) / (1 - (span - 1) / (n - 1)))
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"unevenness of spans of 16, 256, 2048, {num_streams} streams, windows of {window}: {shown}")


def main() -> None:
    """Print all figures."""
    torch.set_num_threads(1)
    plan_a_large_set()  # first, as memory is measured at its peak
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else make_set(Path(folder))
        compare_reading(path)
        compare_positions(path)
    measure_mixing()


if __name__ == "__main__":
    main()
