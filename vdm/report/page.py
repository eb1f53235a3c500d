"""The HTML page of a report: all that it shows travels as JSON, which its own scripts draw."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from vdm.credentials import without_credentials
from vdm.html_pages import embedded_json, security_policy
from vdm.report.charts import LEVELS, charts_of
from vdm.report.curves import Curve, Curves, num_buckets, numbers, thin_out, whole_numbers
from vdm.report.environment import environment_of
from vdm.report.levels import LevelMap, level_maps
from vdm.report.run import ReportedRun
from vdm.report.samples import Samples, fitting, read_video
from vdm.report.settings import differing, differing_keys, flat, shown
from vdm.report.summary import latest, shares_of_time, story_of, tiles_of

SCRIPTS = (
    "elements.js",
    "theme.js",
    "charts.js",
    "curves.js",
    "levels.js",
    "samples.js",
    "tables.js",
    "runs.js",
    "page.js",
)
"""The page's own scripts, in the order in which they need each other."""
MARK = '<meta name="generator" content="vdm report">'
"""What tells a report from other files, near the beginning of the page."""
_RESERVE = 1 << 14
"""Bytes for what is not measured beforehand."""
_MAX_TEXT = 4000
"""Characters of a text from outside, at most."""


@dataclass(frozen=True)
class Limits:
    """What the page may hold."""

    max_bytes: int
    max_videos: int
    """Of each sampled step."""


@dataclass(frozen=True)
class About:
    """What the page says of itself."""

    made: str
    """When."""
    version: str


def page_of(
    runs: Sequence[ReportedRun],
    commands: Mapping[str, Sequence[tuple[str, str]]],
    about: About,
    limits: Limits,
) -> tuple[str, list[str]]:
    """Return the page, and what it leaves out.

    Args:
        runs: The runs; the page compares them if there are several.
        commands: Names and commands to go on with, by the name of the run.
        about: See ``About``.
        limits: See ``Limits``.

    Raises:
        ValueError: In one line, if the page would be too large even without videos.
    """
    names = {name for run in runs for name in run.figures}
    buckets = num_buckets(sum(len(run.figures) for run in runs))
    told = [without_credentials(_plain(run, thin_out(run.figures, buckets), commands[run.name])) for run in runs]
    compared = differing([run.settings for run in runs]) if len(runs) > 1 else []
    content: dict[str, Any] = {
        "about": asdict(about),
        "charts": [asdict(chart) for chart in charts_of(names)],
        "levels": sorted(name for name in names if LEVELS in name),
        "differing": compared,
        "differing_all": differing_keys([run.settings for run in runs]),
        "runs": told,
    }
    scripts = [_package_file(name) for name in SCRIPTS]
    parts = {
        "policy": security_policy([plotly(), "\n".join(scripts)], styles=None),
        "mark": MARK,
        "style": _package_file("page.css"),
        "plotly": plotly(),
        "script": "\n".join(scripts),
    }
    used = sum(map(len, parts.values())) + len(embedded_json(content)) + _RESERVE
    if used > limits.max_bytes:
        raise ValueError(
            f"max_megabytes={limits.max_bytes / 1e6:g}: {len(runs)} run(s) need {used / 1e6:.1f} MB without any video"
        )
    left_out: list[str] = []
    shares = _shares([run.samples for run in runs], limits.max_bytes - used, limits.max_videos)
    for run, of_page, share in zip(runs, told, shares, strict=True):
        samples = fitting(run.samples, limits.max_videos, share)
        of_page["samples"] = _samples(samples)
        if samples.left_out:
            left_out.append(f"{run.name}: {samples.left_out}")
    content["title"] = _title(runs)[:_MAX_TEXT]
    # The content comes last: nothing in it is read as a part of the template.
    return Template(_package_file("page.html")).substitute(parts, content=embedded_json(content)), left_out


def _title(runs: Sequence[ReportedRun]) -> str:
    if len(runs) == 1:
        return runs[0].name
    shared = Path(os.path.commonpath([run.folder.absolute() for run in runs])).name
    return f"{shared}: {len(runs)} runs" if shared else f"{len(runs)} runs"


def plotly() -> str:
    """Return the script of plotly.js, as its Python package carries it."""
    return files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def _package_file(name: str) -> str:
    return files("vdm.report").joinpath("static", name).read_text(encoding="utf-8")


def _plain(run: ReportedRun, curves: Curves, commands: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return all of a run but its videos."""
    return {
        "name": run.name,
        "folder": str(run.folder)[:_MAX_TEXT],
        "state": run.state if run.reason is None or run.state == "finished" else f"{run.state}: {run.reason}",
        "tiles": tiles_of(run),
        "axes": [
            {
                "steps": whole_numbers(axis.steps),
                "seconds": numbers(axis.seconds),
                "positions": whole_numbers(axis.positions),
            }
            for axis in curves.axes
        ],
        "curves": {name: _curve(curve) for name, curve in curves.by_name.items()},
        "level_maps": {split: _level_map(found) for split, found in level_maps(run.figures).items()},
        "step": run.step,
        "latest": {name: latest(run, name) for name in ("train/loss", "val/loss")},
        "shares": shares_of_time(run),
        "measured": [{**asdict(one), "protocol": _flat_protocol(one.protocol)} for one in run.measured],
        "settings": {key: shown(value)[:_MAX_TEXT] for key, value in run.settings.items()},
        "story": story_of(run.history),
        "bad_steps": asdict(run.bad_steps),
        "bad_samples": asdict(run.bad_samples),
        "unreadable": [text[:_MAX_TEXT] for text in run.unreadable],
        "environment": environment_of(run.versions, run.history),
        "commands": [{"name": name, "command": command} for name, command in commands],
        "samples": None,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    extremes = (
        {} if curve.low is None or curve.high is None else {"low": numbers(curve.low), "high": numbers(curve.high)}
    )
    return {
        "axis": curve.axis,
        "mean": numbers(curve.mean),
        **extremes,
        "num_values": curve.num_values,
        "num_not_finite": curve.num_not_finite,
    }


def _level_map(found: LevelMap) -> dict[str, Any]:
    return {
        "names": found.names,
        "levels": found.levels,
        "steps": numbers(found.steps),
        "losses": [numbers(row) for row in found.losses],
    }


def _flat_protocol(protocol: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if protocol is None else {key: shown(value)[:_MAX_TEXT] for key, value in flat(protocol).items()}


def _shares(samples: Sequence[Samples], num_bytes: int, max_videos: int) -> list[int]:
    """Divide bytes among runs: equally, but what one run does not need goes to the others."""
    needs = [replace(one, prompts=one.prompts[:max_videos]).num_bytes() for one in samples]
    shares = [0] * len(needs)
    for done, index in enumerate(sorted(range(len(needs)), key=lambda index: needs[index])):
        shares[index] = min(needs[index], num_bytes // (len(needs) - done))
        num_bytes -= shares[index]
    return shares


def _samples(samples: Samples) -> dict[str, Any]:
    return {
        "prompts": [
            {
                "caption": prompt.caption and prompt.caption[:_MAX_TEXT],
                "label": prompt.label and prompt.label[:_MAX_TEXT],
                "reference": None if prompt.reference is None else _base64(read_video(prompt.reference)),
            }
            for prompt in samples.prompts
        ],
        "steps": [
            {"step": step, "videos": [_base64(read_video(folder / prompt.video)) for prompt in samples.prompts]}
            for step, folder in samples.steps
        ],
        "left_out": samples.left_out,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
