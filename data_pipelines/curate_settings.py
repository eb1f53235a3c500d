"""What ``vdm-data curate`` can be told, checked once at the border."""

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
"""In the order in which they are run."""


@dataclass(frozen=True)
class FilterSettings:
    """What is measured of clips, and what is let pass."""

    scores: Components
    """By name; None is not measured."""
    limits: Mapping[str, Limits | None]
    """By the name of a score or of what is known of a clip."""
    near_duplicate_bits: Annotated[int, Interval(ge=0, le=64)] | None
    """Of 192; None keeps near duplicates."""

    def checked_limits(self) -> dict[str, Limits]:
        """Return the limits there are.

        Raises:
            ValueError: In one line, if one is of no score, or lets nothing pass.
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
        """Refuse an input that is not there, and outputs that can't be written."""
        check_videos(self.input, self.manifest)
        check_writable(self.output, "output")
        check_writable(self.work_folder(), "work")

    def work_folder(self) -> Path:
        """Return where manifests and results are kept."""
        return self.work or self.output.with_name(f"{self.output.name}.work")

    def runs(self, stage: Stage) -> bool:
        """Whether a stage is to be run."""
        return STAGES.index(stage) <= STAGES.index(self.until or STAGES[-1])

    def resolved_clip(self) -> ClipSettings:
        """The look of a clip."""
        return self.clip.resolve(num_frames=16, fps=8.0, height=64, width=64)

    def of_set(self) -> SetSettings:
        """What concerns the set as a whole."""
        fps = self.resolved_clip().fps
        return SetSettings(self.output, fps, self.validation_fraction, self.samples_per_shard, self.seed)
