"""Options common to ``vdm sample`` and ``vdm evaluate``: a trained model and how it samples."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator

from vdm.checkpoints.layout import run_folder
from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint, check_writable
from vdm.config import ConfigError
from vdm.config.options import Component, Name, PlainPath
from vdm.ranges import Seed, Size

if TYPE_CHECKING:
    import torch


def device_name(name: str) -> str:
    """Return the name of a device; refuse what can be none."""
    if name == "meta" or not re.fullmatch(r"[a-z]+(:\d{1,3})?", name):
        raise ValueError("must be auto, or a device such as cpu, cuda or cuda:1")
    return name


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(CommandOptions):
    """The trained model, sampler, guidance and device."""

    of_run: ClassVar[frozenset[str]] = frozenset({"sampler", "guidance"})

    checkpoint: PlainPath | None
    sampler: Component | None
    guidance: Component | None
    guidance_scale: float | None
    guide: PlainPath | None
    seed: Seed
    batch_size: Size
    ema: bool | Name
    device: Annotated[str, AfterValidator(device_name)]
    offload_idle_expert: bool
    output: PlainPath | None
    allow_own_code: bool

    @property
    def imports_any_code(self) -> bool:
        """Only with ``allow_own_code``: sampler and guidance may come from a stranger's run."""
        return self.allow_own_code

    @property
    def default_folder(self) -> Path:
        """Parent of the folder of results without ``output``."""
        return Path() if self.checkpoint is None else run_folder(self.checkpoint)

    def check_paths(self) -> None:
        """Refuse missing runs, and an output that can't be written."""
        if self.checkpoint is not None:
            check_checkpoint(self.checkpoint)
        if self.guide is not None:
            check_checkpoint(self.guide, "guide")
        check_writable(self.output or self.default_folder, "output")

    def find_device(self) -> "torch.device":
        """Return the chosen device; ``auto`` is the first accelerator, else the CPU.

        Raises:
            ConfigError: If there is no such device.
        """
        import torch

        if self.device == "auto":
            return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        try:
            torch.empty(0, device=self.device)
            return torch.device(self.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device={self.device}: {str(error).splitlines()[0]}") from error
