"""Metrics of videos: each source is read or sampled once, whatever the number of metrics."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vdm.checkpoints.collectives import all_gather, rank
from vdm.evaluation.base import Features
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.describe import Described, describe
from vdm.evaluation.feature_cache import FeatureCache
from vdm.evaluation.metric import Metric
from vdm.evaluation.sources.base import ClipSource, UnusableClip
from vdm.evaluation.statistics.bootstrap import interval, interval_of_share, standard_error

_log = logging.getLogger(__name__)
_MAX_LISTED = 20
"""Unusable videos that a result lists, at most."""
_FORMAT = 2
"""To be raised when the same protocol describes clips otherwise than before."""
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
    """95% interval by the bootstrap over clips, without the bias for few of them; that of a share is Wilson's."""
    reliable: bool
    """Whether there were as many clips as the statistic needs."""
    num_videos: int
    num_reference: int | None
    checksum: str | None
    """SHA-256 of the extractor's weights."""
    files: Mapping[str, str]
    """SHA-256 of further files that its descriptions depend on, by name."""
    protocol: Mapping[str, Any]
    unusable: tuple[str, ...]
    """Videos that could not be looked at, and why: the first 20."""
    num_unusable: int

    def plain(self) -> dict[str, Any]:
        """Return the entry of ``results.json``."""
        interval = None if self.interval is None else list(self.interval)
        plain = {"unusable": list(self.unusable), "protocol": dict(self.protocol), "files": dict(self.files)}
        return {**vars(self), "interval": interval, **plain}


@dataclass(frozen=True)
class Measured:
    """The figures of all metrics, and what kept others from one."""

    found: Mapping[str, Measurement]
    failed: Mapping[str, str]
    """Why a metric has no figure, in one line, by its name."""

    def plain(self) -> dict[str, Any]:
        """Return the entries of ``results.json`` by name."""
        return {name: one.plain() for name, one in self.found.items()}

    def whole(self) -> Mapping[str, Measurement]:
        """Return the figures.

        Raises:
            ValueError: If a metric has none.
        """
        for message in self.failed.values():
            raise ValueError(message)
        return self.found


def measure(
    metrics: Mapping[str, NamedMetric],
    videos: ClipSource,
    reference: ClipSource | None,
    truth: ClipSource | None = None,
    cache: FeatureCache | None = None,
    seed: int = 0,
    on_video: Callable[[], object] | None = None,
) -> Measured:
    """Measure videos with every metric.

    All processes call this together; each reads or samples its part, and all return the same. A metric that can't give
    a figure does not keep the others from theirs.

    Args:
        metrics: Metrics by name.
        videos: The videos.
        reference: The videos whose distribution theirs is compared with; None if no metric needs any.
        truth: The true clip of each video, in the same order; None if no metric compares with it.
        cache: Where descriptions of reference videos are kept for the next time.
        seed: Seed of the bootstrap.
        on_video: Called after each video that this process has read or sampled.

    Raises:
        ValueError: In one line that begins with the metric's name, if there are too few videos, or they can't be
            described.
    """
    check_counts(metrics, videos, reference, truth)
    true = {name: one for name, one in metrics.items() if one.metric.statistic.needs_reference}
    of_reference = {} if reference is None else _of_reference(true, reference, cache or FeatureCache(None), on_video)
    plain = {name: one.metric for name, one in metrics.items()}
    counts = {name: one.num_videos or len(videos) for name, one in plain.items()}
    of_videos = describe(videos, plain, counts, truth, on_video)
    found: dict[str, Measurement] = {}
    failed: dict[str, str] = {}
    for name, one in metrics.items():
        try:
            found[name] = _measured(name, one, of_videos[name], of_reference.get(name), seed)
        except ValueError as error:
            failed[name] = str(error)
    return Measured(found, failed)


def num_videos_read(metrics: Mapping[str, NamedMetric], videos: ClipSource, reference: ClipSource | None) -> int:
    """Return how many videos are read or sampled if no descriptions are kept, for a progress bar."""
    counts = [one.metric.num_videos or len(videos) for one in metrics.values()]
    distances = [one.metric for one in metrics.values() if one.metric.statistic.needs_reference]
    of_reference = [] if reference is None else [one.num_reference or len(reference) for one in distances]
    return max(counts, default=0) + max(of_reference, default=0)


def check_counts(
    metrics: Mapping[str, NamedMetric], videos: ClipSource, reference: ClipSource | None, truth: ClipSource | None
) -> None:
    """Refuse sources that have fewer videos than a protocol says, or are missing; arguments as for ``measure``.

    Raises:
        ValueError: In one line that begins with the metric's name.
    """
    for name, one in metrics.items():
        metric = one.metric
        wanted = metric.num_videos or len(videos)
        if metric.statistic.needs_reference and reference is None:
            raise ValueError(f"{name}: compares with other videos; reference=FOLDER names them")
        if metric.compares_pairs and truth is None:
            raise ValueError(f"{name}: compares with true videos of the same names; reference=FOLDER names them")
        if len(videos) < wanted:
            raise ValueError(f"{name}: takes {wanted} videos, but {videos.name} has {len(videos)}")
        if metric.statistic.needs_reference and reference is not None and len(reference) < (metric.num_reference or 0):
            raise ValueError(
                f"{name}: takes {metric.num_reference} reference videos, but {reference.name} has {len(reference)}"
            )
        if metric.compares_pairs and truth is not None and len(truth) < wanted:
            raise ValueError(
                f"{name}: compares each of {wanted} videos with a true one, but {truth.name} has {len(truth)}"
            )


def _of_reference(
    metrics: Mapping[str, NamedMetric],
    reference: ClipSource,
    cache: FeatureCache,
    on_video: Callable[[], object] | None,
) -> dict[str, Described]:
    """Describe the reference videos, but for what is kept. The first process decides that for all."""
    is_kept = cache.is_on and bool(metrics)
    identity = all_gather(reference.identity if rank() == 0 and is_kept else None)[0]
    keys = {name: _content(one, reference, identity) for name, one in metrics.items()}
    found: dict[str, Described] = {}
    for name, key in keys.items():
        kept = cache.load(key) if rank() == 0 and identity is not None else None
        if kept is not None and _is_readable_now(kept, reference, metrics[name].metric.rule):
            kept = None
        if (known := all_gather(kept)[0]) is not None:
            found[name] = known
    missing = {name: one.metric for name, one in metrics.items() if name not in found}
    counts = {name: metric.num_reference or len(reference) for name, metric in missing.items()}
    described = describe(reference, missing, counts, None, on_video, are_reference=True) if missing else {}
    for name, one in described.items():
        if identity is not None and rank() == 0:
            cache.save(keys[name], one)
    return {**found, **described}


def _is_readable_now(kept: Described, reference: ClipSource, rule: ClipRule) -> bool:
    """Tell whether a clip can be read that could not when the others were described.

    A shard may have been repaired, which its index does not tell, or a network drive have failed for a moment.
    """
    numbers = [number for number, clip in kept.unusable.items() if clip.is_unreadable]
    views = reference.views([range(number, number + 1) for number in numbers], [rule]) if numbers else ()
    return any(not isinstance(seen[rule], UnusableClip) for _, seen in views)


def _content(one: NamedMetric, reference: ClipSource, identity: str | None) -> dict[str, Any]:
    """Return all that the descriptions of reference videos depend on."""
    return {
        "format": _FORMAT,
        **{key: one.protocol.get(key) for key in _EXTRACTION},
        "checksum": one.metric.extractor.checksum,
        "files": dict(one.metric.extractor.files),
        "videos": identity,
        "num_videos": one.metric.num_reference or len(reference),
    }


def _measured(name: str, named: NamedMetric, videos: Described, reference: Described | None, seed: int) -> Measurement:
    metric = named.metric
    true: Features | None = None if reference is None else reference.features
    unusable = [clip for side in (videos, reference) if side is not None for clip in side.unusable.values()]
    for side in (videos, reference):
        if side is not None and len(side.features) == 0:
            reason = next((f"; the first: {one.key}: {one.reason}" for one in side.unusable.values()), "")
            raise ValueError(f"{name}: none of {len(side.unusable)} videos can be looked at{reason}")
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
    try:
        value = metric.statistic.value(videos.features, true)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    bounds = None
    if metric.num_resamples > 1 and metric.statistic.is_share:
        bounds = interval_of_share(value, len(videos.features))
    elif metric.num_resamples > 1 and min(counts) > 1:
        error = standard_error(metric.statistic, videos.features, true, metric.num_resamples, seed)
        bounds = interval(value, error)
    return Measurement(
        value,
        bounds,
        reliable,
        len(videos.features),
        None if true is None else len(true),
        metric.extractor.checksum,
        metric.extractor.files,
        named.protocol,
        tuple(f"{one.key}: {one.reason}" for one in unusable[:_MAX_LISTED]),
        len(unusable),
    )
