"""Metrics of videos: each source is read or sampled once, whatever the number of metrics."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vdm.checkpoints.collectives import rank
from vdm.evaluation.base import Features
from vdm.evaluation.describe import Described, describe
from vdm.evaluation.feature_cache import FeatureCache
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.base import ClipSource
from vdm.evaluation.statistics.bootstrap import interval, standard_error

_log = logging.getLogger(__name__)
_MAX_LISTED = 20
"""Unusable videos that a result lists, at most."""
_EXTRACTION = ("extractor", "num_frames", "fps", "start")
"""Parts of a protocol on which the features of a clip depend."""


@dataclass(frozen=True)
class NamedMetric:
    """A metric and its whole protocol."""

    key: str
    """Its name in the configuration, which that of its result begins with."""
    metric: Metric
    protocol: Mapping[str, Any]
    """All of the metric's settings, as plain values."""


@dataclass(frozen=True)
class Measurement:
    """A figure and how it was made."""

    value: float
    interval: tuple[float, float] | None
    """95% interval by the bootstrap over clips; it leaves out the bias that a statistic has for few clips."""
    reliable: bool
    """Whether there were as many clips as the statistic needs."""
    num_videos: int
    num_reference: int | None
    checksum: str | None
    """SHA-256 of the extractor's weights."""
    protocol: Mapping[str, Any]
    unusable: tuple[str, ...]
    """Videos that could not be looked at, and why: the first 20."""
    num_unusable: int

    def plain(self) -> dict[str, Any]:
        """Return the entry of ``results.json``."""
        interval = None if self.interval is None else list(self.interval)
        return {**vars(self), "interval": interval, "unusable": list(self.unusable), "protocol": dict(self.protocol)}


def measure(
    metrics: Mapping[str, NamedMetric],
    videos: ClipSource,
    reference: ClipSource | None,
    cache: FeatureCache | None = None,
    seed: int = 0,
    on_video: Callable[[], object] | None = None,
) -> dict[str, Measurement]:
    """Measure videos with every metric.

    All processes call this together; each reads or samples its part, and all return the same.

    Args:
        metrics: Metrics by name.
        videos: The videos.
        reference: The videos that they are compared with; None if no metric needs any.
        cache: Where descriptions of reference videos are kept for the next time.
        seed: Seed of the bootstrap.
        on_video: Called after each video that this process has read or sampled.

    Raises:
        ValueError: In one line that begins with the metric's name, if there are too few videos, or they can't be
            described.
    """
    for name, one in metrics.items():
        _check_counts(name, one.metric, videos, reference)
    true = {name: one for name, one in metrics.items() if one.metric.statistic.needs_reference}
    of_reference = {} if reference is None else _of_reference(true, reference, cache or FeatureCache(None), on_video)
    plain = {name: one.metric for name, one in metrics.items()}
    counts = {name: one.num_videos or len(videos) for name, one in plain.items()}
    pairs = any(one.compares_pairs for one in plain.values())
    of_videos = describe(videos, plain, counts, reference if pairs else None, on_video)
    return {name: _measured(name, one, of_videos[name], of_reference.get(name), seed) for name, one in metrics.items()}


def num_videos_read(metrics: Mapping[str, NamedMetric], videos: ClipSource, reference: ClipSource | None) -> int:
    """Return how many videos are read or sampled if no descriptions are kept, for a progress bar."""
    counts = [one.metric.num_videos or len(videos) for one in metrics.values()]
    distances = [one.metric for one in metrics.values() if one.metric.statistic.needs_reference]
    of_reference = [] if reference is None else [one.num_reference or len(reference) for one in distances]
    return max(counts, default=0) + max(of_reference, default=0)


def _check_counts(name: str, metric: Metric, videos: ClipSource, reference: ClipSource | None) -> None:
    """Refuse sources that have fewer videos than the protocol says, or no reference where one is needed."""
    if metric.needs_reference and reference is None:
        raise ValueError(f"{name}: compares with other videos; reference=FOLDER names them")
    if metric.num_videos is not None and len(videos) < metric.num_videos:
        raise ValueError(f"{name}: takes {metric.num_videos} videos, but {videos.name} has {len(videos)}")
    if reference is not None and metric.statistic.needs_reference:
        wanted = metric.num_reference
        if wanted is not None and len(reference) < wanted:
            raise ValueError(f"{name}: takes {wanted} reference videos, but {reference.name} has {len(reference)}")
    if reference is not None and metric.compares_pairs and len(reference) < (metric.num_videos or len(videos)):
        raise ValueError(
            f"{name}: compares each of {metric.num_videos or len(videos)} videos with a true one, but {reference.name} "
            f"has {len(reference)}"
        )


def _of_reference(
    metrics: Mapping[str, NamedMetric],
    reference: ClipSource,
    cache: FeatureCache,
    on_video: Callable[[], object] | None,
) -> dict[str, Described]:
    """Describe the reference videos, but for what is kept."""
    identity = reference.identity if metrics else None
    keys: dict[str, dict[str, Any]] = {}
    found: dict[str, Described] = {}
    for name, one in metrics.items():
        keys[name] = {
            **{key: one.protocol.get(key) for key in _EXTRACTION},
            "checksum": one.metric.extractor.checksum,
            "videos": identity,
            "num_videos": one.metric.num_reference or len(reference),
        }
        kept = None if identity is None else cache.load(keys[name])
        if kept is not None:
            found[name] = Described(kept, [])
    missing = {name: one.metric for name, one in metrics.items() if name not in found}
    counts = {name: metric.num_reference or len(reference) for name, metric in missing.items()}
    described = describe(reference, missing, counts, None, on_video, are_reference=True) if missing else {}
    for name, one in described.items():
        if identity is not None and not one.unusable and rank() == 0:
            cache.save(keys[name], one.features)
    return {**found, **described}


def _measured(name: str, named: NamedMetric, videos: Described, reference: Described | None, seed: int) -> Measurement:
    metric = named.metric
    true: Features | None = None if reference is None else reference.features
    unusable = [*videos.unusable, *(reference.unusable if reference is not None else ())]
    if unusable:
        first = f"{unusable[0].key}: {unusable[0].reason}"
        if metric.strict:
            raise ValueError(f"{name}: is strict, and {len(unusable)} of the videos can't be looked at: {first}")
        _log.warning("%s: %d of the videos can't be looked at and are left out: %s", name, len(unusable), first)
    needed = metric.statistic.min_clips(videos.features.shape[-1])
    counts = [len(videos.features), *([] if true is None else [len(true)])]
    reliable = min(counts) >= needed
    if not reliable:
        message = f"{name}: needs {needed} videos on each side to be reliable, and has {min(counts)}"
        if metric.strict:
            raise ValueError(f"{message}; it is strict")
        _log.warning("%s", message)
    value = metric.statistic.value(videos.features, true)
    bounds = None
    if metric.num_resamples > 1 and min(counts) > 1:
        error = standard_error(metric.statistic, videos.features, true, metric.num_resamples, seed)
        bounds = interval(value, error)
    return Measurement(
        value,
        bounds,
        reliable,
        len(videos.features),
        None if true is None else len(true),
        metric.extractor.checksum,
        named.protocol,
        tuple(f"{one.key}: {one.reason}" for one in unusable[:_MAX_LISTED]),
        len(unusable),
    )
