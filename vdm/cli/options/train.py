"""Options of ``vdm train`` that are no components: what those take, their constructors say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint, check_shards
from vdm.config import ConfigError
from vdm.config.options import MAY_BE_ABSENT, Built, Component, Components, FolderName, PlainPath
from vdm.ranges import Count, CountOrZero, Seed, Size


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """When the held-out loss is measured."""

    every_steps: Count


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CommandOptions):
    """Everything that ``conf/train.yaml`` sets."""

    name: FolderName
    seed: Seed
    resume: PlainPath | None
    init_from: PlainPath | None
    guidance_scale: float
    validate: ValidateOptions
    clip: Mapping[str, Any] | None
    """What clips are like; recorded when training begins, and there where a run goes on."""
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
    blocks: Component
    strategy: Component
    trainer: Component
    bad_steps: Component
    watchdog: Component
    save: Component
    logger: Components
    callbacks: Components
    profiler: Component | None
    follows: Mapping[str, Any] | None = field(default=None, metadata=MAY_BE_ABSENT)
    """Which keys take their values from which others; recorded when training begins. See ``vdm.cli.followers``."""
    started_in: str | None = field(default=None, metadata=MAY_BE_ABSENT)
    """The folder from which a relative data.path counts; recorded when training begins."""
    # With launcher=slurm:
    launcher: Component | None = field(default=None, metadata=MAY_BE_ABSENT)
    nodes: Size | None = field(default=None, metadata=MAY_BE_ABSENT)
    gpus_per_node: CountOrZero | None = field(default=None, metadata=MAY_BE_ABSENT)

    def __post_init__(self) -> None:
        if self.clip is not None and self.resume is None:
            raise ConfigError("clip: is recorded when training begins; sizes of clips are those of data.path")

    @classmethod
    def imports_from_here(cls, told: Mapping[str, Any]) -> bool:
        """Packages of the user's own may: what is trained is the user's own configuration."""
        return True

    def check_paths(self) -> None:
        """Refuse weights to start from, and a set of shards, that are not there."""
        if self.init_from is not None and self.resume is None:
            check_checkpoint(self.init_from, "init_from")
        self.check_data()

    def check_data(self) -> None:
        """Refuse a folder of shards that is not there; what is wrong with one that is, is found when it is opened."""
        given = self.data.get("path")
        for path in given if isinstance(given, Mapping) else [given]:
            if isinstance(path, str):
                check_shards(path, "data.path")
