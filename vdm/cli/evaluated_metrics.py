"""Metrics of videos in ``vdm evaluate``: built from ``metric=``, measured and printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.collectives import num_processes, rank
from vdm.cli.options.evaluate import EvaluateOptions
from vdm.config import ConfigError
from vdm.data.datamodule import ClipDataModule
from vdm.evaluation.build import ChosenMetrics, build_metrics, published
from vdm.evaluation.feature_cache import FeatureCache, default_folder
from vdm.evaluation.measure import Measured, Measurement, NamedMetric, measure, num_videos_read
from vdm.evaluation.measuring_bar import MeasuringBar
from vdm.evaluation.sources.base import ClipSource
from vdm.evaluation.sources.sampled import SampledVideos
from vdm.evaluation.sources.shard_clips import ShardClips
from vdm.evaluation.sources.video_folder import VideoFolder
from vdm.found_instead import has_index
from vdm.types import ClipSize

DEFAULT = "frechet_transnet"
"""The metric of finished videos where none is chosen."""


def measure_videos(options: EvaluateOptions) -> Measured:
    """Measure finished videos."""
    assert options.videos is not None, "options have been checked"
    nodes = options.chosen_metrics or {DEFAULT: published(DEFAULT)}
    videos = _source(options.videos, "videos", options)
    reference = None if options.reference is None else _source(options.reference, "reference", options)
    sets = [one.data for one in (reference, videos) if isinstance(one, ShardClips)]
    names = {"videos": options.videos, "reference": options.reference, "split": options.split}
    metrics = _built(nodes, options, sets[0] if sets else None, names)
    truth = reference
    if isinstance(reference, VideoFolder) and isinstance(videos, VideoFolder) and _compare_pairs(metrics):
        truth = reference.like(videos)
    return _measured(metrics, options, videos, reference, truth, _bar())


def _compare_pairs(metrics: Mapping[str, NamedMetric]) -> bool:
    return any(one.metric.compares_pairs for one in metrics.values())


def measure_model(
    options: EvaluateOptions,
    model: VideoDiffusionModel,
    data: ClipDataModule,
    sampling: Mapping[str, Any],
) -> Measured:
    """Sample videos with the conditions of held-out clips, and measure them.

    Args:
        options: Options of the command.
        model: The model, with the sampler and guidance to sample with.
        data: The held-out clips, which are also the reference unless another is named.
        sampling: How videos are sampled, as a part of every protocol.
    """
    held_out = ShardClips(data, "validation", options.max_clips, data.clip_shape, max(1, options.num_threads))
    reference = held_out if options.reference is None else _source(options.reference, "reference", options)
    nodes = ChosenMetrics(options.chosen_metrics).of(options.num_samples).nodes
    names = {"conditions": data.name, "reference": reference.name}
    bar = _bar()
    metrics = _built(nodes, options, data, {"sampling": dict(sampling), **names})
    videos = SampledVideos(
        str(sampling["checkpoint"]),
        model,
        held_out,
        ClipSize(*data.clip_shape),
        data.fps,
        max(one.metric.num_videos or 0 for one in metrics.values()),
        options.seed,
        options.batch_size,
        bar.step,
    )
    for one in metrics.values():
        videos.check(one.key, one.metric.rule)
    return _measured(metrics, options, videos, reference, held_out, bar)


def _measured(
    metrics: Mapping[str, NamedMetric],
    options: EvaluateOptions,
    videos: ClipSource,
    reference: ClipSource | None,
    truth: ClipSource | None,
    bar: MeasuringBar,
) -> Measured:
    total = -(-num_videos_read(metrics, videos, reference) // num_processes())
    with bar.shown(total):
        measured = measure(metrics, videos, reference, truth, _cache(options), options.seed, bar.video)
    if rank() == 0:
        for name, one in measured.found.items():
            print(_line(name, one))
    return measured


def _bar() -> MeasuringBar:
    return MeasuringBar(is_hidden=rank() > 0)


def _cache(options: EvaluateOptions) -> FeatureCache:
    return FeatureCache(default_folder() if options.keep_features else None)


def _line(name: str, found: Measurement) -> str:
    interval = "" if found.interval is None else f" (95% interval {found.interval[0]:.4g} to {found.interval[1]:.4g})"
    against = "" if found.num_reference is None else f" against {found.num_reference}"
    doubt = "" if found.reliable else ", not reliable"
    return f"{name}  {found.value:.4f}{interval}, {found.num_videos} videos{against}{doubt}"


def _source(place: str, key: str, options: EvaluateOptions) -> VideoFolder | ShardClips:
    """Return the videos of a folder, or the clips of a shard set."""
    threads = max(1, options.num_threads)
    try:
        if "://" not in place and not has_index(Path(place)):
            return VideoFolder(Path(place), threads, _cache(options).file_digests)
        data = ClipDataModule(place, options.batch_size, options.batch_size, num_workers=0, max_validation_clips=None)
        return ShardClips(data, options.split, None, num_threads=threads)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


def _built(
    nodes: Mapping[str, Any], options: EvaluateOptions, data: ClipDataModule | None, more: Mapping[str, Any]
) -> dict[str, NamedMetric]:
    strict = {"strict": True} if options.strict else {}
    return build_metrics({name: {**node, **strict} for name, node in nodes.items()}, options.find_device(), data, more)
