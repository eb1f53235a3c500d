"""Options of ``vdm dashboard``."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Len

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint
from vdm.config import ConfigError
from vdm.config.options import Name, PlainPath
from vdm.extras import check_installed


@dataclass(frozen=True, kw_only=True)
class DashboardOptions(CommandOptions):
    """Everything that ``conf/dashboard.yaml`` sets."""

    run: PlainPath | None
    project: Name | None
    entity: Name | None
    name: Name
    metrics: Annotated[list[Name], Len(1, 1000)] | None

    def check_paths(self) -> None:
        """Refuse a missing run, and no or two sources of the project's name."""
        if (self.run is None) == (self.project is None):
            raise ConfigError("give run=RUN, or project=NAME for all runs of a project on W&B")
        if self.run is not None:
            check_checkpoint(self.run, "run")
            if self.entity is not None:
                raise ConfigError(f"entity={self.entity}: is for project=NAME; a run has recorded its own")

    def check_machine(self) -> None:
        """Refuse to go on without W&B's library of workspaces."""
        check_installed("wandb_workspaces", "dashboards", "vdm dashboard")
