"""The record of a run: its configuration (``config.yaml``) and the versions it was started with (``versions.json``)."""

import json
import logging
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.checkout import git_version
from vdm.checkpoints.layout import CONFIG_NAME, config_file
from vdm.config.moved import modernized
from vdm.files import write_file
from vdm.outside import dump_yaml, read_yaml
from vdm.records import read_record

VERSIONS_NAME = "versions.json"
FORMAT_KEY, FORMAT = "run_format", 1
"""Key of ``config.yaml`` with the version of the format of a run's folder; a file without the key has version 1."""

_log = logging.getLogger(__name__)


def record_run(run: Path, config: Mapping[str, Any]) -> None:
    """Record the configuration, and add the versions of code and packages to those of earlier starts."""
    write_config(run, config)
    path = run / VERSIONS_NAME
    try:
        starts = versions_of(run)
    except ValueError as error:
        aside = path.with_name(f"{VERSIONS_NAME}.damaged-{datetime.now():%Y-%m-%d_%H-%M-%S}")
        path.rename(aside)
        _log.warning("%s; it is only a log: set aside as %s, and begun anew", error, aside.name)
        starts = []
    write_file(path, json.dumps([*starts, _versions()], indent=1))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration of a run, or of an export."""
    write_file(folder / CONFIG_NAME, dump_yaml({**config, FORMAT_KEY: FORMAT}))


class Git(TypedDict):
    """The checkout that a run was started from."""

    commit: str


class Versions(TypedDict):
    """The versions at one start of a run."""

    packages: dict[str, str]
    git: NotRequired[Git | None]


def versions_of(run: Path) -> list[Versions]:
    """Return the versions at each start of a run.

    Raises:
        ValueError: If the file is damaged.
    """
    path = run / VERSIONS_NAME
    return read_record(path, list[Versions]) if path.exists() else []


def load_config(path: Path) -> dict[str, Any]:
    """Return the whole configuration of a run, or of the run of a checkpoint; nothing in it is interpolated.

    Former names, recorded by an earlier version, are replaced by present ones: see ``vdm.config.moved``.

    Only ``vdm train resume=RUN`` may build components from it, since it trusts the run as the user's own. All other
    commands use ``RunConfig``.

    Raises:
        ValueError: In one line, if there is no configuration, it is not a plain mapping, or a newer version wrote it.
    """
    file = config_file(path)
    config = read_yaml(file)
    written = config.pop(FORMAT_KEY, 1)
    if written != FORMAT:
        raise ValueError(
            f"{file}: {FORMAT_KEY}={written}: written by another version of vdm than this one, which reads {FORMAT}"
        )
    return modernized(config)


def _versions() -> dict[str, Any]:
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_version(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
