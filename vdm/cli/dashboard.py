"""``vdm dashboard``: lays out a workspace on Weights & Biases."""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from vdm.checkpoints.layout import config_file, run_folder
from vdm.checkpoints.run_record import load_config
from vdm.cli.next_step import say_next
from vdm.cli.options.dashboard import DashboardOptions
from vdm.config import ConfigError
from vdm.config.conf_dir import conf_dir
from vdm.config.options import parse
from vdm.outside import typed
from vdm.ranges import Name
from vdm.text import printable
from vdm.training.loggers.wandb_files import IDENTITY_NAME, read_identity
from vdm.training.loggers.wandb_server import unreachable

LOGGER = "vdm.training.loggers.wandb_logger.WandbLogger"
"""The logger whose place on W&B a run has recorded."""
_QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""Has W&B's library, from its import on, report errors to nobody but its caller."""
_IDENTITY = re.compile(r"[\w-]{1,128}")


@dataclass(frozen=True)
class _Place:
    """Where the workspace is made, and of what."""

    project: str
    entity: str | None
    metrics: tuple[str, ...]
    has_panel_each: bool
    """Whether each metric has a panel."""
    identity: str = ""
    """Id of the run that stays in view."""


def run(config: DictConfig) -> None:
    """Make the workspace, and print its address."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = parse(DashboardOptions, plain)
    place = _of_run(options.run, options.metrics) if options.run is not None else _of_project(options)
    if os.environ.get("WANDB_MODE", "online") != "online":
        raise ConfigError(f"WANDB_MODE={os.environ['WANDB_MODE']}: a workspace is made on a server; unset WANDB_MODE")
    os.environ.update(_QUIET)
    if (complaint := unreachable()) is not None:
        raise ConfigError(f"W&B: {complaint}")
    print(f"Workspace: {printable(_saved(place, options.name))}")
    if options.run is not None and any((options.run / "wandb").glob("offline-run-*")):
        say_next(f"wandb sync {shlex.quote(str(options.run))}/wandb/offline-run-*")


def _of_project(options: DashboardOptions) -> _Place:
    """Return the place that the command line names; its metrics are all of ``conf/metric``, unless some are named."""
    assert options.project is not None
    known = tuple(path.stem for path in (conf_dir() / "metric").glob("*.yaml"))
    return _Place(options.project, options.entity, tuple(options.metrics or known), bool(options.metrics))


@dataclass(frozen=True)
class _Config:
    """The keys of a recorded configuration that are read here."""

    logger: Mapping[str, Mapping[str, Any] | None] | None = None
    metric: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Logger:
    project: Name = "vdm"
    entity: Name | None = None


def _of_run(run: Path, metrics: list[str] | None) -> _Place:
    """Return the place that a run has recorded.

    Raises:
        ValueError: In one line, if the run does not log to W&B.
    """
    folder = run_folder(run)
    source = config_file(folder)
    config = typed(_Config, load_config(folder), source)
    loggers = [one for one in (config.logger or {}).values() if one is not None and one.get("_target_") == LOGGER]
    if not loggers:
        raise ConfigError(f"run={run}: does not log to W&B, by {source}; give project=NAME")
    logger = typed(_Logger, loggers[0], f"{source}: logger")
    identity = read_identity(folder).name
    if identity and not _IDENTITY.fullmatch(identity):
        raise ConfigError(f"{folder / IDENTITY_NAME}: {identity!r} is no id of a run on W&B")
    chosen = tuple(config.metric or {}) if metrics is None else tuple(metrics)
    return _Place(logger.project, logger.entity, chosen, True, identity)


def _saved(place: _Place, name: str) -> str:
    """Make the workspace on the server, and return its address.

    Raises:
        ConfigError: In one line, if the server refuses it.
    """
    import wandb
    from wandb.errors import Error
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError
    from wandb_workspaces.workspaces import RunsetSettings, Workspace

    from vdm.training.loggers.wandb_workspace import sections

    pinned = RunsetSettings(pinned_runs=[place.identity] if place.identity else [])
    parts = sections(place.metrics, place.has_panel_each)
    try:
        if not wandb.login(prompt=False):
            raise ConfigError("W&B: no API key; set WANDB_API_KEY, or type: wandb login")
        api = wandb.Api()
        workspace = Workspace(_entity(api, place), place.project, name, parts, runset_settings=pinned)
        return workspace.save().url
    except ValidationError:
        raise ConfigError(
            f"name={name}: W&B takes letters, digits and punctuation, but no emoji, + and the like"
        ) from None
    except (Error, WandbApiFailedError) as error:
        raise ConfigError(f"W&B: {error}") from None


def _entity(api: Any, place: _Place) -> str:
    """Return the user or team whose project it is.

    Raises:
        ConfigError: In one line, if there is no such project.
    """
    entity = place.entity or api.default_entity
    if not entity:
        raise ConfigError("W&B: the account has no default entity; give entity=NAME")
    try:
        _ = api.project(place.project, entity).id
    except ValueError as error:
        reason = error.__cause__ or "no such project; what was logged offline is uploaded by: wandb sync"
        raise ConfigError(f"W&B: {entity}/{place.project}: {reason}") from None
    return entity
