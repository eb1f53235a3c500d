"""Options of ``vdm plan``: those of ``vdm train``, and what is planned for."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, Len

from vdm.cli.options.train import TrainOptions
from vdm.config.words import Described
from vdm.ranges import Size

_Gib = Annotated[float, Interval(ge=0, le=1_000_000), Described("a number of GiB, at least 0")]


@dataclass(frozen=True, kw_only=True)
class PlanOptions(TrainOptions):
    """Everything that ``conf/plan.yaml`` sets."""

    clip_shape: (
        Annotated[list[Size], Len(3, 3), Described("[frames, height, width], each a whole number above 0")] | None
    )
    caption_bytes: Annotated[int, Interval(ge=0, le=1_000_000)]
    devices: Size | None
    memory_gib: _Gib
    reserve_gib: _Gib
