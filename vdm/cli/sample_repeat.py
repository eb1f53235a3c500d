"""``vdm sample settings=FILE``: options of an earlier call, as defaults of this one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vdm.cli.options.base import CommandOptions
from vdm.cli.overrides import overridden_keys
from vdm.cli.sample_settings import COMPONENTS, Settings
from vdm.config import ConfigError
from vdm.config.options import check_some
from vdm.config.quoting import escaped

_OF_TASK = frozenset({"input", "input_fps", "input_frames", "from", "every", "num_frames"})
"""Recorded options that another task does not take over."""


def with_recorded_options(
    config: DictConfig, overrides: Sequence[str], options: type[CommandOptions] | None
) -> tuple[DictConfig, Mapping[str, Any]]:
    """Return the configuration with the options that ``config.settings`` records, and the recorded components.

    Args:
        config: Configuration composed of YAMLs and command line.
        overrides: Overrides of the command line, which take precedence.
        options: Class of the command's options.

    Raises:
        ConfigError: In one line, if the settings can't be read, or contain a key or value that is not allowed.
    """
    if options is None or config.get("settings") is None:
        return config, {}
    path, allow_own_code = Path(str(config.settings)), config.get("allow_own_code") is True
    recorded = Settings.read_file(path, allow_own_code).options
    told = {path[0] for path in overridden_keys(overrides)}
    if "prompts_file" in told:
        told.add("prompts")
    if "task" in told and config.task != recorded.get("task"):
        told |= _OF_TASK
    plain: Any = OmegaConf.to_container(config, resolve=False)
    deciding = {"checkpoint": recorded.get("checkpoint", "???"), "allow_own_code": allow_own_code}
    deciding |= {key: plain[key] for key in told & deciding.keys()}
    try:
        check_some(options.completed({**recorded, **deciding}), recorded)
    except ConfigError as error:
        raise ConfigError(f"settings={path}: {error}") from None
    taken = {key: value for key, value in recorded.items() if key not in told and key not in COMPONENTS}
    return DictConfig({**plain, **escaped(taken)}), {key: recorded[key] for key in COMPONENTS if key in recorded}
