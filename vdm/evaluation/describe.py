"""One pass over a source: every metric's descriptions of its clips, on all processes together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch

from vdm.checkpoints.collectives import all_gather, num_processes, rank, run_on_all
from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.base import ClipSource, UnusableClip, Views, blocks_of_rank

OnVideo = Callable[[], object]


@dataclass(frozen=True)
class Described:
    """The descriptions of a source's clips, in their order."""

    features: Features
    unusable: Mapping[int, UnusableClip]
    """The clips that could not be looked at, by number; they have no features."""


@dataclass
class _Part:
    """What one process has described for one metric."""

    name: str
    metric: Metric
    num_videos: int
    is_reversed: bool
    features: dict[int, Features] = field(default_factory=dict)
    unusable: dict[int, UnusableClip] = field(default_factory=dict)
    waiting: list[tuple[int, EvaluatedClip, EvaluatedClip | None]] = field(default_factory=list)

    def add(self, number: int, views: Views, true_views: Views | None) -> None:
        """Describe a video together with others.

        Args:
            number: Number of the video in its source.
            views: What the rules see of it.
            true_views: What they see of the video that it is compared with, for metrics that do so.
        """
        if number >= self.num_videos:
            return
        clip, rule = views[self.metric.rule], self.metric.rule
        truth = true_views[rule] if true_views is not None and self.metric.compares_pairs else None
        if isinstance(clip, UnusableClip):
            self.unusable[number] = clip
        elif isinstance(truth, UnusableClip):
            self.unusable[number] = truth
        else:
            if truth is not None and truth.key != clip.key:
                raise ValueError(f"{self.name}: compares videos of equal names, but finds {clip.key} and {truth.key}")
            if self.is_reversed:
                clip = replace(clip, video=clip.video.flip(1))
            self.waiting.append((number, clip, truth))
            if len(self.waiting) == self.metric.extractor.batch_size:
                self.flush()

    def flush(self) -> None:
        """Describe the clips that wait for others."""
        if not self.waiting:
            return
        clips = [clip for _, clip, _ in self.waiting]
        truths = [truth for _, _, truth in self.waiting if truth is not None]
        extractor: Any = self.metric.extractor
        found = extractor.compare(clips, truths) if self.metric.compares_pairs else extractor.describe(clips)
        rows = found.float().cpu()
        self.features |= {number: rows[place] for place, (number, _, _) in enumerate(self.waiting)}
        self.waiting.clear()


def describe(
    source: ClipSource,
    metrics: Mapping[str, Metric],
    num_videos: Mapping[str, int],
    truth: ClipSource | None = None,
    on_video: OnVideo | None = None,
    are_reference: bool = False,
) -> dict[str, Described]:
    """Read or sample the videos of a source once, and describe them for every metric.

    All processes call this together. Each takes every R-th block, and all get the descriptions of all clips.

    Args:
        source: The videos.
        metrics: Metrics by name.
        num_videos: How many of the source's videos each metric looks at: the first ones.
        truth: The true clips, in the same order, for metrics that compare pairs.
        on_video: Called after each video of this process.
        are_reference: Whether these are reference videos, which are never reversed.

    Raises:
        ValueError: In one line, if the source can't be read or an extractor can't describe its clips.
    """
    total = max(num_videos.values(), default=0)
    blocks = blocks_of_rank(total, source.block_size, rank(), num_processes())
    num_pairs = max((num_videos[name] for name, one in metrics.items() if one.compares_pairs), default=0)
    paired = [range(block.start, min(block.stop, num_pairs)) for block in blocks]

    parts = {
        name: _Part(name, metric, num_videos[name], metric.reverse and not are_reference)
        for name, metric in metrics.items()
    }
    rules = {metric.rule for metric in metrics.values()}

    def fill() -> None:
        views = source.views(blocks, rules)
        numbers = chain.from_iterable(blocks)
        pairs = {one.metric.rule for one in parts.values() if one.metric.compares_pairs}
        truths = iter(()) if truth is None else truth.views([block for block in paired if block], pairs)
        for number, (_, seen) in zip(numbers, views, strict=True):
            true = next(truths)[1] if truth is not None and number < num_pairs else None
            for part in parts.values():
                part.add(number, seen, true)
            if on_video is not None:
                on_video()
        for part in parts.values():
            part.flush()

    run_on_all(fill)
    return {name: _gathered(part) for name, part in parts.items()}


def _gathered(part: _Part) -> Described:
    features: dict[int, Features] = {}
    unusable: dict[int, UnusableClip] = {}
    for of_rank, without in all_gather((part.features, part.unusable)):
        features |= of_rank
        unusable |= without
    rows = torch.stack([features[number] for number in sorted(features)]) if features else torch.zeros(0, 1, 1)
    return Described(rows, {number: unusable[number] for number in sorted(unusable)})
