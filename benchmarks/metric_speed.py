"""How fast videos are read and described for a metric, beside what reading and describing take alone.

All cores read, then all cores describe, then both go on together as ``vdm evaluate`` does. Sharing the cores, reading
of r and describing of d videos a second allow 1 / (1/r + 1/d) together.

    VDM_VIDEOS=FOLDER python benchmarks/metric_speed.py
"""

import os
import time
from pathlib import Path

import torch

from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.extractors.transnet import TransNet
from vdm.evaluation.measure import NamedMetric, measure
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.video_folder import VideoFolder
from vdm.evaluation.statistics.frechet import FrechetDistance

ROUNDS = 3
RULE = ClipRule(16)


def main() -> None:
    """Print the rates of each round."""
    folder = os.environ.get("VDM_VIDEOS")
    if folder is None:
        print("not measured: VDM_VIDEOS names no folder of videos")
        return
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    videos = VideoFolder(Path(folder), cores)
    extractor = TransNet()
    metric = Metric(extractor, FrechetDistance(), num_resamples=0)
    print(f"{len(videos)} videos, {cores} cores\n")
    print("| round | read alone | described alone | together | of what is possible |")
    print("| --- | --- | --- | --- | --- |")
    for number in range(ROUNDS):
        start = time.perf_counter()
        views = [views[RULE] for _, views in videos.views([range(len(videos))], [RULE])]
        clips = [clip for clip in views if isinstance(clip, EvaluatedClip)]
        read = len(clips) / (time.perf_counter() - start)
        start = time.perf_counter()
        for first in range(0, len(clips), extractor.batch_size):
            extractor.describe(clips[first : first + extractor.batch_size])
        described = len(clips) / (time.perf_counter() - start)
        num_clips = len(clips)
        del views, clips
        together = 2 * num_clips / _seconds(metric, videos)  # as the videos, and as the reference
        possible = 1 / (1 / read + 1 / described)
        share = together / possible
        print(f"| {number} | {read:.1f}/s | {described:.1f}/s | {together:.1f}/s | {share:.0%} |", flush=True)


def _seconds(metric: Metric, videos: VideoFolder) -> float:
    start = time.perf_counter()
    named = NamedMetric("frechet_transnet", metric, {"num_frames": metric.num_frames})
    measure({"frechet_transnet": named}, videos, videos)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
