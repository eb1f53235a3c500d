"""Options of ``vdm import``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_new
from vdm.config.options import Name, PlainPath
from vdm.ranges import Positive, Size


@dataclass(frozen=True, kw_only=True)
class ClipWishes:
    """Default size and speed of videos of the model; None is as published."""

    num_frames: Size | None
    height: Size | None
    width: Size | None
    fps: Positive | None


@dataclass(frozen=True, kw_only=True)
class ImportOptions(CommandOptions):
    """Everything that ``conf/import.yaml`` sets."""

    source: Name = field(metadata={"key": "from"})
    """A folder, a file, or a name on the hub."""
    to: PlainPath
    families: Mapping[str, Any]
    """Published families by the class of their pipeline."""
    variant: Name | None
    components: Name | None
    """A folder, or a name on the hub."""
    clip: ClipWishes
    guidance_scale: float | None
    allow_own_code: bool

    def check_paths(self) -> None:
        """Refuse an output that exists already."""
        check_new(self.to, "to")
