"""Options of ``vdm evaluate``."""

from dataclasses import dataclass
from typing import Literal

from vdm.cli.options.paths import check_shards
from vdm.cli.options.sampling import SamplingOptions
from vdm.config.options import Component, Name
from vdm.ranges import Count, Size


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(SamplingOptions):
    """Everything that ``conf/evaluate.yaml`` sets."""

    bits_per_dim: Component | None
    data_path: Name | None
    """A folder or a URL."""
    max_clips: Count | None
    num_levels: Size
    bits_per_dim_clips: Size
    prompted_digits: Literal["auto"] | bool
    num_samples: Size

    def check_paths(self) -> None:
        """Refuse a missing data set, too."""
        super().check_paths()
        if self.data_path is not None:
            check_shards(self.data_path, "data_path")

    def check_machine(self) -> None:
        """Refuse a missing device; this imports PyTorch."""
        self.find_device()
