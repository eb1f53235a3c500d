"""Options of ``vdm export``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint, check_file, check_new
from vdm.config.options import Name, PlainPath


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CommandOptions):
    """Everything that ``conf/export.yaml`` sets."""

    checkpoint: PlainPath
    to: PlainPath
    families: Mapping[str, Any]
    """Published families by the class of their pipeline."""
    format: Literal["diffusers", "own"] | None
    ema: bool | Name
    lora: bool | Literal["diffusers", "comfyui"]
    """True means ``diffusers``."""
    dtype: Literal["fp32", "fp16", "bf16"] | None
    components: Name | None
    """A folder, or a name on the hub."""
    rest_of: PlainPath | None

    def check_paths(self) -> None:
        """Refuse a missing run, and an existing output."""
        check_checkpoint(self.checkpoint)
        check_new(self.to, "to")
        if self.rest_of is not None:
            check_file(self.rest_of, "rest_of")
