"""Options of ``vdm report``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Interval, Len

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_writable
from vdm.cli.reported_runs import reported_runs
from vdm.config import ConfigError
from vdm.config.options import PlainPath
from vdm.config.words import Described
from vdm.ranges import SizeOrZero
from vdm.regular_files import open_regular
from vdm.report.page import MARK

PAGE_NAME = "report.html"
_MAX_HEAD = 4096
"""Bytes of a page in which its mark must stand."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(CommandOptions):
    """Everything that ``conf/report.yaml`` sets."""

    instead: ClassVar[Mapping[str, str]] = {
        "checkpoint": "run=RUN names the run",
        "runs": "run=[RUN,RUN] names several",
    }

    run: PlainPath | Annotated[list[PlainPath], Len(1, 500), Described("a list of one or more folders")]
    output: PlainPath | None
    overwrite: bool
    max_megabytes: Annotated[float, Interval(ge=6, le=2000), Described("a number of MB, at least 6 and at most 2000")]
    max_videos: SizeOrZero

    @property
    def paths(self) -> list[Path]:
        """What ``run`` names."""
        return self.run if isinstance(self.run, list) else [self.run]

    @property
    def page(self) -> Path:
        """The file to write."""
        return self.output or (Path(PAGE_NAME) if len(self.paths) > 1 else self.paths[0] / PAGE_NAME)

    def check_paths(self) -> None:
        """Refuse what is no run, and a file in the way of the page."""
        try:
            reported_runs(self.paths)
        except (ValueError, OSError) as error:
            raise ConfigError(str(error)) from None
        page = self.page
        if page.is_dir():
            raise ConfigError(f"output={page}: is a folder; give a file")
        if page.exists() and not self.overwrite and not is_report(page):
            raise ConfigError(f"output={page}: exists already, and is no report; overwrite=true replaces it")
        check_writable(page.parent, "output")


def is_report(path: Path) -> bool:
    """Tell whether a file is a page that ``vdm report`` wrote."""
    try:
        with open_regular(path) as file:
            return MARK.encode() in file.read(_MAX_HEAD)
    except OSError:
        return False
