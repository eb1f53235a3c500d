"""A workspace on Weights & Biases: what a run logs, in sections."""

import re
from collections.abc import Iterable, Sequence

from wandb_workspaces.reports.v2 import LinePlot, MediaBrowser, WeavePanelSummaryTable
from wandb_workspaces.workspaces import Section, SectionLayoutSettings

from vdm.training.loggers.wandb_files import STEP

Panel = LinePlot | MediaBrowser | WeavePanelSummaryTable


def sections(metrics: Iterable[str], with_panels: bool) -> list[Section]:
    """Return the sections of a workspace, in order.

    Args:
        metrics: Names of metrics of sampled videos.
        with_panels: Whether each metric has a panel; otherwise one panel shows those of them that runs have logged.
    """
    found = [
        _section("Loss", _loss()),
        _section("Gradients and updates", _gradients()),
        _section("Samples", _samples(), columns=2),
        _section("Metrics", _metrics(sorted(metrics), with_panels)),
        _section("Speed", _speed()),
        _section("Data", _data()),
    ]
    return [section for section in found if section.panels]


def _section(name: str, panels: Sequence[Panel], columns: int = 3) -> Section:
    layout = SectionLayoutSettings(columns=columns, rows=-(-len(panels) // columns))
    return Section(name=name, panels=list(panels), is_open=True, layout_settings=layout)


def _loss() -> Sequence[Panel]:
    return [
        _lines("Loss", "train/loss", "val/loss"),
        _lines("Training loss by noise level, as bars", "train/loss_by_level"),
        _lines("Validation loss by noise level, as bars", "val/loss_by_level"),
        _all_lines("Training loss by noise level", "^train/loss_by_level/"),
        _all_lines("Validation loss by noise level", "^val/loss_by_level/"),
    ]


def _samples() -> Sequence[Panel]:
    return [
        MediaBrowser(title="Sampled videos", media_keys=["sample/videos"]),
        MediaBrowser(title="Film strips", media_keys=["sample/film_strips"], num_columns=1),
        WeavePanelSummaryTable(table_name="sample/videos_table"),
    ]


def _metrics(names: list[str], with_panels: bool) -> Sequence[Panel]:
    """Return the panels of metrics; a metric's changed settings follow its name, as ``val/fid[num_frames=4]``."""
    if with_panels:
        return [_all_lines(name, rf"^val/{re.escape(name)}(\[|$)") for name in names]
    return [_all_lines("Metrics of sampled videos", rf"^val/({'|'.join(map(re.escape, names))})(\[|$)")]


def _gradients() -> Sequence[Panel]:
    return [
        _lines("Gradient norm", "train/grad_norm", logarithmic=True),
        _all_lines("Gradient norm by part", "^train/grad_norm/", logarithmic=True),
        _all_lines("Update divided by weights, by part", "^train/update_ratio/", logarithmic=True),
        _lines("Learning rate", "train/learning_rate"),
    ]


def _speed() -> Sequence[Panel]:
    return [
        _lines("Clips per second", "perf/clips_per_second"),
        _lines("Frames per second", "perf/frames_per_second"),
        _lines("Operations per second", "perf/flops_per_second"),
        _lines("Share of the peak", "perf/peak_fraction"),
        _all_lines("Shares: of the peak, and of time spent waiting or otherwise", "^perf/.*_fraction$"),
        _all_lines("Memory (GiB)", "^perf/memory_gib/"),
    ]


def _data() -> Sequence[Panel]:
    return [
        _lines("Epochs", "data/epoch"),
        _lines("Samples seen", "data/position"),
        _lines("Bad samples and skipped steps", "data/num_bad_samples", "data/num_skipped_steps"),
    ]


def _lines(title: str, *names: str, logarithmic: bool = False) -> LinePlot:
    return LinePlot(title=title, x=STEP, y=list(names), log_y=logarithmic or None)


def _all_lines(title: str, pattern: str, logarithmic: bool = False) -> LinePlot:
    """Return a panel of all figures whose names match; W&B's expressions are Go's, without look-ahead."""
    return LinePlot(title=title, x=STEP, metric_regex=pattern, log_y=logarithmic or None)
