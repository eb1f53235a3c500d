"""Options of ``vdm runs``."""

from dataclasses import dataclass
from typing import Literal

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_folder
from vdm.config.options import PlainPath


@dataclass(frozen=True, kw_only=True)
class RunsOptions(CommandOptions):
    """Everything that ``conf/runs.yaml`` sets."""

    folder: PlainPath
    sort: Literal["age", "step", "loss", "name"]
    format: Literal["table", "json", "csv"]

    def check_paths(self) -> None:
        """Refuse a missing folder."""
        check_folder(self.folder, "folder", "of runs")
