"""Options of ``vdm train``; those of components are declared by their constructors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint, check_shards
from vdm.config.options import MAY_BE_ABSENT, Built, Component, Components, FolderName, PlainPath
from vdm.ranges import Count, CountOrZero, Seed, Size


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """When the held-out loss is measured."""

    every_steps: Count


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CommandOptions):
    """Everything that ``conf/train.yaml`` sets, and what is added to a run's configuration when training begins."""

    instead: ClassVar[Mapping[str, str]] = {
        "check": "to rehearse the run, type vdm check with the same options",
        "clip": "the shards decide the size of clips: vdm-data build clip.height=... clip.width=...",
    }

    name: FolderName
    seed: Seed
    resume: PlainPath | None
    init_from: PlainPath | None
    guidance_scale: float
    validate: ValidateOptions
    data: Annotated[Component, Built(("path", "cache_path"))]
    encoder: Component
    text_encoder: Component | None
    model: Annotated[Component, Built(("pretrained",))]
    diffusion: Component
    objective: Component
    sampler: Component
    guidance: Component
    optimizer: Component
    lr_schedule: Component
    averages: Component | None
    training: Component
    tune: Component
    experts: Literal["both", "high", "low"] = field(default="both", metadata=MAY_BE_ABSENT)
    blocks: Component
    strategy: Component
    trainer: Component
    bad_steps: Component
    watchdog: Component
    save: Component
    logger: Components
    metric: Components = field(default_factory=dict, metadata=MAY_BE_ABSENT)
    callbacks: Components
    profiler: Component | None
    # Recorded when training begins:
    clip: Mapping[str, Any] | None = field(default=None, metadata=MAY_BE_ABSENT)
    """Size and speed of the clips, and the names of classes."""
    follows: Mapping[str, Any] | None = field(default=None, metadata=MAY_BE_ABSENT)
    """Which keys take their values from which others; see ``vdm.cli.followers``."""
    started_in: str | None = field(default=None, metadata=MAY_BE_ABSENT)
    """The folder that a relative data.path is relative to."""
    # With launcher=slurm:
    launcher: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    nodes: Size | None = field(default=None, metadata=MAY_BE_ABSENT)
    gpus_per_node: CountOrZero | None = field(default=None, metadata=MAY_BE_ABSENT)

    @classmethod
    def imports_from_here(cls, told: Mapping[str, Any]) -> bool:
        """Always: the configuration of a training run is the user's own."""
        return True

    def check_paths(self) -> None:
        """Refuse missing initial weights, and a missing set of shards."""
        if self.init_from is not None and self.resume is None:
            check_checkpoint(self.init_from, "init_from")
        self.check_data()

    def check_data(self) -> None:
        """Refuse a missing folder of shards. Damage is found when it is opened."""
        given = self.data.get("path")
        for path in given if isinstance(given, Mapping) else [given]:
            if isinstance(path, str):
                check_shards(path, "data.path")
