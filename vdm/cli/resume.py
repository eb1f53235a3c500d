"""The configuration of a resumed run: its own, with the changes that are allowed.

A run is resumed by ``resume=RUN``, or by starting the same command again in its folder, as a requeued job does.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vdm.checkpoints.data_path import STARTED_IN, resolve_data_path
from vdm.cli.followers import ABSENT, FOLLOWS, followers_of, let_follow, recorded_followers, select
from vdm.cli.overrides import overridden_keys
from vdm.cli.own_code import refuse_missing
from vdm.config import ConfigError
from vdm.config.quoting import escaped
from vdm.outside import typed

CHANGEABLE = (
    "resume",
    # placement
    "launcher",
    "nodes",
    "gpus_per_node",
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
"""Keys, and groups of keys, that a resumed run may change."""

_RECORDED = ("clip", FOLLOWS, STARTED_IN)
"""Keys that are recorded when training begins, and that users can't set."""

_log = logging.getLogger(__name__)


def resumed(config: DictConfig, overrides: Sequence[str], folder: Path) -> DictConfig:
    """Return the configuration of the resumed run, or that of a new run with its followers.

    Args:
        config: Configuration composed of YAMLs and command line.
        overrides: Overrides of the command line.
        folder: Folder of the run.

    Raises:
        ConfigError: If the run can't be resumed with these options.
    """
    if "resume" not in config:
        return config
    from vdm.checkpoints.layout import checkpoints_of, without_link
    from vdm.training.starts import has_yet_to_resume, is_restart

    for key in _RECORDED:
        if key in config:
            raise ConfigError(f"{key}: is recorded when training begins, and can't be chosen")
    composed: Any = OmegaConf.to_container(config, resolve=True)
    followers = followers_of(config, _is_changeable)
    has_begun = bool(checkpoints_of(folder))
    goes_on = has_begun and is_restart()
    if config.resume is not None:
        source = without_link(Path(config.resume))
        if goes_on and not has_yet_to_resume(folder, source):
            source = folder  # a restarted job continues from its own progress
        merged = apply_resume_overrides(_of_own(source), composed, overrides, followers)
        return DictConfig(escaped({**merged, "resume": str(source)}))
    if not has_begun:
        unresolved: Any = OmegaConf.to_container(config, resolve=False)
        return DictConfig({**unresolved, FOLLOWS: followers, STARTED_IN: escaped(str(Path.cwd()))})
    saved = _of_own(folder)
    if not goes_on:  # a requeued job is resumed even if YAMLs have been edited meanwhile
        _refuse_difference(saved, _as_if_saved(config, saved), folder)
    return DictConfig(escaped({**_kept(saved, composed, followers), "resume": str(folder)}))


@dataclass(frozen=True)
class _Recorded:
    """Keys of a recorded configuration that are read here; the others are built."""

    follows: dict[str, str] = field(default_factory=dict[str, str])
    started_in: str | None = None


def _of_own(run: Path) -> dict[str, Any]:
    """Return the configuration of a run to resume. It is trusted: it decides what is built, and where that writes.

    Raises:
        ConfigError: If training never began there, or the record is damaged.
    """
    from vdm.checkpoints.layout import config_file
    from vdm.checkpoints.run_record import load_config

    saved = load_config(run)
    typed(_Recorded, saved, config_file(run))
    if "trainer" not in saved:
        raise ConfigError(
            f"resume={run}: made by vdm import or vdm ema, without training to go on with; begin by init_from={run}"
        )
    owner = config_file(run).stat().st_uid
    if owner != os.geteuid():
        _log.warning("%s belongs to user %d, and is trusted as yours: it may run code as you", config_file(run), owner)
    return saved


def _kept(saved: Mapping[str, Any], composed: Mapping[str, Any], followers: Mapping[str, str]) -> dict[str, Any]:
    """Return ``saved``, with all changeable keys as in ``composed``."""
    return _merged(saved, composed, followers, [key.split(".") for key in CHANGEABLE])


def _merged(
    saved: Mapping[str, Any], composed: Mapping[str, Any], followers: Mapping[str, str], taken: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Return ``saved`` with the keys ``taken`` as in ``composed``, and their followers with them."""
    result = {**deepcopy(dict(composed)), **deepcopy(dict(saved))}
    for path in taken:
        copy_key(composed, result, path)
    before = {key: source for key, source in recorded_followers(saved).items() if not _is_below(key.split("."), taken)}
    now = {key: source for key, source in followers.items() if _is_below(key.split("."), taken)}
    let_follow(result, before | now)
    path = select(result, ["data", "path"])
    if isinstance(path, str | dict) and not _is_below(["data", "path"], taken):
        result["data"]["path"] = resolve_data_path(path, saved.get(STARTED_IN))
    refuse_missing(result, saved.get(STARTED_IN))
    result[STARTED_IN] = str(Path.cwd())
    return result


def _as_if_saved(config: DictConfig, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with all changeable keys as in ``saved``, and the keys that refer to them."""
    result = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    for key in CHANGEABLE:
        value = select(saved, key.split("."))
        if value is not ABSENT:
            OmegaConf.update(result, key, escaped(value), merge=False)
    plain: Any = OmegaConf.to_container(result, resolve=True)
    return plain


def _refuse_difference(saved: Mapping[str, Any], composed: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume a run in a folder that was chosen for another.

    Raises:
        ConfigError: If a value differs that a resumed run can't change.
    """
    for path, value in _leaves(composed):
        before = select(saved, path)
        if not _is_changeable(path) and path[0] not in _RECORDED and before not in (ABSENT, value):
            raise ConfigError(
                f"{'.'.join(path)}={value}: {folder} holds a run with {before}; choose another folder by hydra.run.dir,"
                f" or go on with that run by resume={folder}"
            )


def apply_resume_overrides(
    saved: Mapping[str, Any],
    composed: Mapping[str, Any],
    overrides: Sequence[str],
    followers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return ``saved`` with the overridden keys as in ``composed``, and their followers with them.

    Args:
        saved: Configuration of the run to resume. A top-level key that it lacks, as it is older than the key, comes
            from ``composed``.
        composed: Configuration composed of YAMLs and command line.
        overrides: Overrides of the command line, in Hydra's syntax.
        followers: Followers in ``composed``: by dotted key, the key whose value it takes.

    Raises:
        ConfigError: If an override changes a key that is not in ``CHANGEABLE``.
    """
    taken = overridden_keys(overrides)
    for path, override in zip(taken, overrides, strict=True):
        if not _is_changeable(path):
            raise ConfigError(
                f"{override}: a resumed run keeps its configuration except for {', '.join(CHANGEABLE)};"
                " start another with init_from=RUN"
            )
    return _merged(saved, composed, followers or {}, taken)


def _is_changeable(path: Sequence[str]) -> bool:
    return _is_below(path, [key.split(".") for key in CHANGEABLE])


def _is_below(path: Sequence[str], roots: Sequence[Sequence[str]]) -> bool:
    """Tell whether a key is one of ``roots``, or below one."""
    return any(list(path[: len(root)]) == list(root) for root in roots)


def _leaves(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and value of each leaf."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def copy_key(source: Mapping[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    """Copy the value at ``path`` from ``source`` to ``target``, or remove it if ``source`` lacks it."""
    key, *rest = path
    if rest and isinstance(source.get(key), Mapping) and isinstance(target.get(key), dict):
        copy_key(source[key], target[key], rest)
    elif key in source:
        target[key] = deepcopy(source[key])
    else:
        target.pop(key, None)
