"""Options of ``vdm ema``."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint, check_new
from vdm.config.options import PlainPath
from vdm.config.words import Described

_MAX_SIGMA_REL = 12**-0.5
"""``sigma_rel`` of the uniform average over all steps."""


@dataclass(frozen=True, kw_only=True)
class EmaOptions(CommandOptions):
    """Everything that ``conf/ema.yaml`` sets."""

    checkpoint: PlainPath
    sigma_rel: Annotated[float, Interval(gt=0, lt=_MAX_SIGMA_REL), Described("a number above 0 and below 0.2887")]
    output: PlainPath | None

    def check_paths(self) -> None:
        """Refuse a missing run, and an existing output."""
        check_checkpoint(self.checkpoint)
        if self.output is not None:
            check_new(self.output, "output")
