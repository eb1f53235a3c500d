"""Metrics, built from a configuration's ``metric`` and named by their protocols."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vdm.config import ConfigError, build
from vdm.config.conf_dir import conf_dir
from vdm.config.signatures import signature_of
from vdm.config.targets import resolve
from vdm.data.datamodule import ClipDataModule
from vdm.evaluation.digit_classifier import LearnedDigits
from vdm.evaluation.measure import NamedMetric
from vdm.evaluation.metric import Metric
from vdm.outside import read_yaml

NO_PROTOCOL = ("path", "name_or_path", "mean", "sha256", "batch_size", "num_resamples", "strict", "better")
"""Keys that don't change the figure: where weights are, which checksum they must have, and how the work is done."""
COUNTS = ("num_videos", "num_reference")
"""Keys that don't change the name where the protocol leaves them open: the counts are in the result."""


@dataclass(frozen=True)
class ChosenMetrics:
    """The metrics that a run's configuration chooses, not built yet."""

    nodes: Mapping[str, Any]
    """Configuration of each metric by the name of its YAML."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Configuration of what samples the videos: ``sampler`` and ``guidance``."""

    def of(self, num_videos: int) -> "ChosenMetrics":
        """Return those whose number of videos is open with ``num_videos``; null leaves a metric out."""
        chosen = {name: node for name, node in self.nodes.items() if node}
        open_ones = {name: {**node, "num_videos": num_videos} for name, node in chosen.items() if _is_open(node)}
        return replace(self, nodes={**chosen, **open_ones})


def _is_open(node: Mapping[str, Any]) -> bool:
    return node.get("num_videos") is None


def build_metrics(
    nodes: Mapping[str, Any], device: torch.device, data: ClipDataModule | None, more: Mapping[str, Any]
) -> dict[str, NamedMetric]:
    """Build metrics by the names of their results.

    Args:
        nodes: Configuration of each metric by the name of its YAML.
        device: Where extractors run.
        data: A data set, from which extractors that know digits learn them.
        more: What else belongs to the protocols.

    Raises:
        ConfigError: One line that names the key.
    """
    learned = {} if data is None else {"digits": LearnedDigits(data)}
    metrics: dict[str, NamedMetric] = {}
    for name, node in nodes.items():
        key = f"metric.{name}"
        described = node.get("extractor") or {}
        if "_target_" not in described:
            raise ConfigError(f"{key}.extractor: no value given; it describes the clips")
        target = resolve(described["_target_"], f"{key}.extractor._target_", None)
        if data is None and "digits" in signature_of(target).named:
            raise ConfigError(f"metric={name}: learns digits from a shard set of moving digits, and none is given")
        extractor = build(described, f"{key}.extractor", defaults=learned)
        metric = build(node, key, extractor=extractor.to(device))
        if not isinstance(metric, Metric):
            raise ConfigError(f"{key}._target_: must be {Metric.__module__}.{Metric.__name__}")
        named = result_name(name, node)
        try:
            metric.check_name(named)
        except ValueError as error:
            raise ConfigError(f"metric: {error}") from None
        metrics[named] = NamedMetric(name, metric, {**node, **more})
    return metrics


def published(name: str) -> dict[str, Any] | None:
    """Return the metric of ``conf/metric/NAME.yaml``; None if there is none."""
    path = conf_dir() / "metric" / f"{name}.yaml"
    return read_yaml(path) if path.is_file() else None


def result_name(name: str, node: Mapping[str, Any]) -> str:
    """Return the metric's name, followed by the parts of its protocol that differ from the YAML of that name.

    A user's own metric keeps its name, whatever its protocol.
    """
    usual = published(name)
    if usual is None:
        return name
    is_open = [key for key in COUNTS if usual.get(key) is None]
    before, now = ({key: value for key, value in _flat(one) if key not in is_open} for one in (usual, node))
    changed = [f"{key}={now.get(key)}" for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return f"{name}[{','.join(changed)}]" if changed else name


def _flat(node: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{parent}{key}.")
        elif key not in NO_PROTOCOL:
            yield f"{parent}{key}", value
