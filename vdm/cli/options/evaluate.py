"""Options of ``vdm evaluate``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from vdm.cli.options.paths import check_file, check_folder, check_shards, check_writable
from vdm.cli.options.sampling import SamplingOptions
from vdm.config import ConfigError
from vdm.config.options import MAY_BE_ABSENT, Component, Components, Name, PlainPath
from vdm.found_instead import has_index
from vdm.ranges import Count, NumProcesses, Size


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(SamplingOptions):
    """Everything that ``conf/evaluate.yaml`` sets."""

    instead: ClassVar[Mapping[str, str]] = {"metrics": "metric=[NAME,NAME] chooses metrics"}

    bits_per_dim: Component | None
    metric: Components = field(default_factory=dict, metadata=MAY_BE_ABSENT)
    videos: Name | None
    """A folder of videos, a shard set or its URL."""
    reference: Name | None
    """As ``videos``."""
    split: Literal["validation", "train"]
    data_path: Name | None
    """A folder or a URL."""
    max_clips: Count | None
    num_levels: Size
    bits_per_dim_clips: Size
    prompted_digits: Literal["auto"] | bool
    num_samples: Size
    strict: bool
    num_threads: NumProcesses
    keep_features: bool
    export: PlainPath | None
    export_for: Literal["vbench", "evalcrafter"]
    prompts_file: PlainPath | None

    @property
    def chosen_metrics(self) -> Mapping[str, Any]:
        """The metrics by name; null leaves one out."""
        return {name: node for name, node in self.metric.items() if node}

    def check_paths(self) -> None:
        """Refuse missing videos and a missing data set, too."""
        if self.checkpoint is None and self.videos is None:
            raise ConfigError("checkpoint: no value given; add checkpoint=RUN, or videos=FOLDER for finished videos")
        if self.checkpoint is not None and self.videos is not None:
            raise ConfigError(f"videos={self.videos}: give either a checkpoint, which samples videos, or videos")
        super().check_paths()
        if self.data_path is not None:
            check_shards(self.data_path, "data_path")
        if self.export is not None:
            check_writable(self.export, "export")
        elif self.prompts_file is not None:
            raise ConfigError(f"prompts_file={self.prompts_file}: is for export=FOLDER")
        if self.prompts_file is not None:
            check_file(self.prompts_file, "prompts_file")
        for key, place in (("videos", self.videos), ("reference", self.reference)):
            if place is not None:
                _check_videos(place, key)
        if self.checkpoint is None:
            given = {
                "data_path": self.data_path,
                "guide": self.guide,
                "guidance_scale": self.guidance_scale,
                "export": self.export,
            }
            for key, value in given.items():
                if value is not None:
                    raise ConfigError(f"{key}={value}: is for a model; give checkpoint=RUN instead of videos")
            for key in ("sampler", "guidance", "bits_per_dim"):
                if getattr(self, key):
                    raise ConfigError(f"{key}: is for a model; give checkpoint=RUN instead of videos")
            if self.prompted_digits is True:
                raise ConfigError("prompted_digits=true: is for a model; give checkpoint=RUN instead of videos")

    def check_machine(self) -> None:
        """Refuse a missing device; this imports PyTorch."""
        self.find_device()


def _check_videos(place: str, key: str) -> None:
    if "://" in place or has_index(Path(place)):
        check_shards(place, key)
    else:
        check_folder(Path(place), key, "of videos, or of shards")
