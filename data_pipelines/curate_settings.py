"""Settings of ``vdm-data curate``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from data_pipelines.settings import (
    HDR,
    ClipOptions,
    ClipSettings,
    LocalPath,
    NotURL,
    Precision,
    SetSettings,
    check_videos,
)
from data_pipelines.stages.limits import KNOWN, Limits
from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_writable
from vdm.config.options import MAY_BE_ABSENT, Component, Components, Name
from vdm.ranges import Count, NotNegative, Seed, ShareBelowOne

Stage = Literal["probe", "cut", "filter", "caption", "encode", "write", "verify"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""The stages, in the order in which they run."""


@dataclass(frozen=True)
class FilterSettings:
    """The scores of clips, and the limits that clips must be within."""

    scores: Components
    """Components by name; a score that is None is not measured."""
    limits: Mapping[str, Limits | None]
    """Limits by name of a score, or of a value in ``KNOWN``; None for no limit."""
    near_duplicate_bits: Annotated[int, Interval(ge=0, le=64)] | None
    """Maximum number of the 192 bits in which hashes of near duplicates differ; None keeps near duplicates."""

    def checked_limits(self) -> dict[str, Limits]:
        """Return the limits that are set.

        Raises:
            ValueError: In one line, if a limit has the name of no score, or no value can satisfy it.
        """
        allowed = (*KNOWN, *(name for name, score in self.scores.items() if score))
        found = {name: limit for name, limit in self.limits.items() if limit is not None}
        for name, limit in found.items():
            if name not in allowed:
                raise ValueError(f"filter.limits.{name}: is not measured; allowed: {', '.join(allowed)}")
            if limit.min is not None and limit.max is not None and limit.min > limit.max:
                raise ValueError(f"filter.limits.{name}: min={limit.min:g} is above max={limit.max:g}: no clip passes")
        return found


@dataclass(frozen=True)
class CurateSettings(CommandOptions):
    """Everything that ``conf/curate.yaml`` sets."""

    input: Annotated[Name, NotURL]
    output: LocalPath
    shots: Component
    filter: FilterSettings
    executor: Component
    captioner: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    encoder: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    text_encoder: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    work: LocalPath | None = None
    until: Stage | None = None
    manifest: LocalPath | None = None
    hdr: HDR = "map"
    drop_exact_duplicates: bool = True
    clip: ClipOptions = field(default_factory=ClipOptions)
    cut_margin_seconds: NotNegative = 0.0
    recaption: bool = False
    precision: Precision = "float16"
    validation_fraction: ShareBelowOne = 0.1
    samples_per_shard: Count = 500
    seed: Seed = 0

    def check_paths(self) -> None:
        """Refuse a missing input, and outputs that can't be written."""
        check_videos(self.input, self.manifest)
        check_writable(self.output, "output")
        check_writable(self.work_folder(), "work")

    def work_folder(self) -> Path:
        """Return the folder of manifests and cached results."""
        return self.work or self.output.with_name(f"{self.output.name}.work")

    def runs(self, stage: Stage) -> bool:
        """Return whether a stage is run."""
        return STAGES.index(stage) <= STAGES.index(self.until or STAGES[-1])

    def resolved_clip(self) -> ClipSettings:
        """Return the settings of a clip, with defaults filled in."""
        return self.clip.resolve(num_frames=16, fps=8.0, height=64, width=64)

    def of_set(self) -> SetSettings:
        """Return the settings of the set as a whole."""
        fps = self.resolved_clip().fps
        return SetSettings(self.output, fps, self.validation_fraction, self.samples_per_shard, self.seed)
