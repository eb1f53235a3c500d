"""``resume=RUN``: the run goes on in its own folder, under its own configuration."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vdm.config import ConfigError

CHANGEABLE = (
    "resume",
    # placement
    "strategy",
    "blocks",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "data.path",
    "data.num_workers",
    "data.micro_batch_size",
    # logging
    "callbacks",
    "data.quarantine_path",
    "logger",
    "profiler",
    "trainer.log_every_n_steps",
    "validate",
    # watching
    "bad_steps",
    "watchdog",
    # saving
    "save",
    # number of steps
    "trainer.max_steps",
    "trainer.max_time",
)
"""Keys, and groups of keys, that may differ from the run that is resumed."""


def register_run_dir() -> None:
    """Let YAMLs choose a run's folder with ``${vdm.run_dir:RESUME,FRESH}``."""
    OmegaConf.register_new_resolver("vdm.run_dir", _run_dir, replace=True)


def _run_dir(resume: str | None, fresh: str) -> str:
    if resume is None:
        return fresh
    from vdm.checkpoints.runs import run_folder

    try:
        return str(run_folder(Path(resume)))
    except ValueError as error:
        raise ConfigError(f"resume: {error}") from error


def resumed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of the run that ``config.resume`` names, or ``config`` where it names none.

    Args:
        config: What the YAMLs and the command line make now.
        overrides: The command line's overrides.
    """
    if config.get("resume") is None:
        return config
    from vdm.checkpoints.runs import load_config

    composed: Any = OmegaConf.to_container(config, resolve=True)
    return OmegaConf.create(apply_resume_overrides(load_config(Path(config.resume)), composed, overrides))


def apply_resume_overrides(
    saved: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Return ``saved`` with the overridden keys as they are in ``composed``.

    Args:
        saved: Configuration of the run to be resumed. What it lacks at the top level, as in a run older than the key,
            it takes from ``composed``.
        composed: Configuration that the YAMLs and the command line make now.
        overrides: The command line's overrides, in Hydra's syntax.

    Raises:
        ConfigError: If an override changes more than ``CHANGEABLE``.
    """
    result = {**deepcopy(dict(composed)), **deepcopy(dict(saved))}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        path = override.key_or_group.replace("/", ".").split(".")
        if not any(path[: len(root)] == root for root in (key.split(".") for key in CHANGEABLE)):
            raise ConfigError(
                f"{override.input_line}: a resumed run keeps its configuration except for {', '.join(CHANGEABLE)};"
                " start another with init_from=RUN"
            )
        _copy(composed, result, path)
    return result


def _copy(source: Mapping[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    """Make ``target`` the same as ``source`` at ``path``, also where it is absent there."""
    key, *rest = path
    if rest and isinstance(source.get(key), Mapping) and isinstance(target.get(key), dict):
        _copy(source[key], target[key], rest)
    elif key in source:
        target[key] = deepcopy(source[key])
    else:
        target.pop(key, None)
