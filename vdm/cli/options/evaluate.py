"""Options of ``vdm evaluate``."""

from dataclasses import dataclass
from typing import Literal

from vdm.cli.options.paths import is_missing_folder
from vdm.cli.options.sampling import SamplingOptions
from vdm.config import ConfigError
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
        """Refuse a set that is not there, too."""
        super().check_paths()
        if is_missing_folder(self.data_path):
            raise ConfigError(f"data_path: {self.data_path}: no such folder")

    def check_machine(self) -> None:
        """Refuse a device that is not there; this imports PyTorch."""
        self.find_device()
