"""Options of ``vdm demo``."""

import os
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, Len, MinLen
from pydantic import AfterValidator

from vdm.cli.options.base import CommandOptions
from vdm.cli.options.paths import check_checkpoint, check_writable
from vdm.cli.options.sampling import device_name
from vdm.config import ConfigError
from vdm.config.options import Name, PlainPath
from vdm.config.words import Described
from vdm.extras import check_installed
from vdm.ranges import Port

USER_VARIABLE, PASSWORD_VARIABLE = "VDM_DEMO_USER", "VDM_DEMO_PASSWORD"
"""Environment variables with name and password, which other users of the machine don't see among its processes."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions(CommandOptions):
    """Everything that ``conf/demo.yaml`` sets."""

    checkpoint: PlainPath | Annotated[list[PlainPath], MinLen(1), Described("a list of one or more folders")]
    output: PlainPath | None
    ema: bool | Name
    device: Annotated[str, AfterValidator(device_name)]
    host: Name
    port: Port
    allowed_hosts: Annotated[list[Name], Len(1, 100)] | None
    user: Name | None
    password: Name | None
    max_upload_mib: Annotated[int, Interval(ge=1, le=4096)]
    max_upload_frames: Annotated[int, Interval(ge=1, le=10_000)]
    allow_own_code: bool

    @property
    def checkpoints(self) -> tuple[PlainPath, ...]:
        """Runs or checkpoints, side by side on the page."""
        return tuple(self.checkpoint) if isinstance(self.checkpoint, list) else (self.checkpoint,)

    @property
    def imports_any_code(self) -> bool:
        """Only with ``allow_own_code``: the models may be a stranger's."""
        return self.allow_own_code

    @property
    def login(self) -> tuple[str, str] | None:
        """Name and password that the page asks for; None for neither.

        Raises:
            ConfigError: If only one of them is given.
        """
        user, password = self.user or os.environ.get(USER_VARIABLE), self.password or os.environ.get(PASSWORD_VARIABLE)
        if user and password:
            return user, password
        if user or password:
            given, missing = ("user", "password") if user else ("password", "user")
            raise ConfigError(f"{given}: is given without {missing}; give both, or neither")
        return None

    def check_paths(self) -> None:
        """Refuse missing runs, an output that can't be written, half a login, and a missing package."""
        check_installed("gradio", "demo", "vdm demo")
        for checkpoint in self.checkpoints:
            check_checkpoint(checkpoint)
        if self.output is not None:
            check_writable(self.output, "output")
        _ = self.login
