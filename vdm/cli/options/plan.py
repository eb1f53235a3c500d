"""Options of ``vdm plan``: those of ``vdm train``, the size of clips and the devices."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, Len

from vdm.cli.options.paths import is_missing_folder
from vdm.cli.options.train import TrainOptions
from vdm.config import ConfigError
from vdm.config.words import Described
from vdm.ranges import Size

_Gib = Annotated[float, Interval(ge=0, le=1_000_000), Described("a number of GiB, at least 0 and at most 1000000")]


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

    def check_data(self) -> None:
        """Refuse options that don't determine the size of clips.

        Raises:
            ConfigError: In one line that names ``data.path``.
        """
        path = self.data.get("path")
        if self.clip_shape is not None:
            return
        if path is None or is_missing_folder(path):
            found = "not given" if path is None else f"{path}: no such folder"
            raise ConfigError(f"data.path: {found}; plan without it by clip_shape=[frames,height,width]")
        super().check_data()
