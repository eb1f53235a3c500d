"""What a reference set costs a metric the first time, and once its descriptions are kept.

A shard set of many small clips, and a folder of videos of which one can't be read. The extractor costs next to nothing,
so the first time is that of reading; kept descriptions are as large as those of TransNet V2.

    python benchmarks/metric_reference.py
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch.nn import functional as F

from data_pipelines.encode.h264 import encode_h264
from data_pipelines.encode.shard_writer import ShardWriter
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import ShardIndex, write_index
from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.extractors.batches import WithoutNetwork
from vdm.evaluation.feature_cache import FeatureCache
from vdm.evaluation.measure import NamedMetric, measure
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.shard_clips import ShardClips
from vdm.evaluation.sources.video_folder import VideoFolder
from vdm.evaluation.statistics.frechet import FrechetDistance

NUM_CLIPS, SHARD_SIZE, SHAPE = 5000, 500, (4, 32, 32)
NUM_VIDEOS, FRAMES_OF_VIDEO, SIZE_OF_VIDEO = 400, 32, 256
RULE_FRAMES = 4
SETTLED_S = 3
"""Seconds after which a file counts as unchanged, and a little more."""


@dataclass
class Colors(WithoutNetwork):
    """Describes a clip by its mean brightness in 256 cells."""

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """See ``Extractor``."""
        cells = [F.adaptive_avg_pool2d(clip.video.float().mean((0, 1))[None], 16) for clip in clips]
        return rearrange(torch.cat(cells), "n h w -> n 1 (h w)")


def main() -> None:
    """Print both costs of both sets."""
    with tempfile.TemporaryDirectory() as folder:
        shards, videos = write_shards(Path(folder) / "shards"), write_videos(Path(folder) / "videos")
        few = write_videos(Path(folder) / "few", 2)
        cache = FeatureCache(Path(folder) / "kept")
        time.sleep(SETTLED_S)
        num_bytes = sum(path.stat().st_size for path in videos.iterdir())
        print("| reference | first time | seen before |\n| --- | --- | --- |")
        opened: list[tuple[str, Callable[[], ShardClips | VideoFolder]]] = [
            (f"shard set of {NUM_CLIPS} clips", lambda: ShardClips(data_of(shards))),
            (
                f"folder of {NUM_VIDEOS + 1} videos, {num_bytes >> 20} MiB",
                lambda: VideoFolder(videos, digests=cache.file_digests),
            ),
        ]
        for name, reference in opened:
            seconds = [seconds_with(reference, few, cache) for _ in range(2)]
            print(f"| {name} | {seconds[0]:.1f} s | {seconds[1]:.2f} s |", flush=True)


def seconds_with(reference: Callable[[], ShardClips | VideoFolder], few: Path, cache: FeatureCache) -> float:
    """Return the seconds that it takes to open a reference set and to measure two videos against it."""
    metric = Metric(Colors(), FrechetDistance(), num_frames=RULE_FRAMES, num_resamples=0)
    named = {"m": NamedMetric("m", metric, {"num_frames": RULE_FRAMES})}
    videos = VideoFolder(few)
    start = time.perf_counter()
    measure(named, videos, reference(), cache=cache).whole()
    return time.perf_counter() - start


def data_of(shards: Path) -> ClipDataModule:
    """Open a shard set as ``vdm evaluate`` does."""
    return ClipDataModule(str(shards), 8, 8, num_workers=0, max_validation_clips=None)


def write_shards(folder: Path) -> Path:
    """Write a shard set whose clips are all held out, but for one shard."""
    folder.mkdir()
    video = encode_h264(np.zeros((*SHAPE, 3), dtype=np.uint8), 8.0)
    splits = {"train": ["train-000000"], "validation": [f"validation-{n:06d}" for n in range(NUM_CLIPS // SHARD_SIZE)]}
    entries = {}
    for split, names in splits.items():
        entries[split] = []
        for name in names:
            with ShardWriter(folder / f"{name}.tar", durable=False) as writer:
                for clip in range(SHARD_SIZE):
                    metadata = {"caption": f"clip {clip}", "label": None, "fps": 8.0}
                    writer.add(f"{name}-{clip}", SHAPE, {"mp4": video, "json": json.dumps(metadata).encode()})
            entries[split].append(writer.entry)
    write_index(folder, ShardIndex.of(entries, fps=8.0))
    return folder


def write_videos(folder: Path, number: int = NUM_VIDEOS) -> Path:
    """Write videos of noise, and a file that is none."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES_OF_VIDEO, SIZE_OF_VIDEO, SIZE_OF_VIDEO, 3), np.uint8)
    video = encode_h264(noise, 8.0)
    for index in range(number):
        (folder / f"{index}.mp4").write_bytes(video)
    (folder / "bad.mp4").write_bytes(b"no video")
    return folder


if __name__ == "__main__":
    main()
