"""The record of a run: its configuration (``config.yaml``) and the versions it was started with (``versions.json``)."""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # that of typing suffices from Python 3.12 on

from vdm.checkpoints.checkout import GitVersion, git_diff, git_version
from vdm.checkpoints.layout import CONFIG_NAME, config_file
from vdm.config.moved import modernized
from vdm.credentials import without_credentials
from vdm.files import write_file
from vdm.outside import dump_yaml, read_yaml
from vdm.records import read_record

VERSIONS_NAME = "versions.json"
FORMAT_KEY, FORMAT = "run_format", 1
"""Key of ``config.yaml`` with the version of the format of a run's folder; a file without the key has version 1."""

_log = logging.getLogger(__name__)


def record_run(
    run: Path,
    config: Mapping[str, Any],
    data_sets: Sequence["DataIdentity"] = (),
    hardware: Mapping[str, Any] | None = None,
) -> None:
    """Record the configuration, and add the versions of code and packages to those of earlier starts.

    Args:
        run: Folder of the run.
        config: The whole configuration.
        data_sets: The sets that are trained on.
        hardware: The machine that it is trained on.
    """
    write_config(run, config)
    path = run / VERSIONS_NAME
    try:
        starts = versions_of(run)
    except ValueError as error:
        aside = path.with_name(f"{VERSIONS_NAME}.damaged-{datetime.now():%Y-%m-%d_%H-%M-%S}")
        path.rename(aside)
        _log.warning("%s; it is only a log: set aside as %s, and begun anew", error, aside.name)
        starts = []
    git = git_version()
    version = _versions(git, _record_diff(run) if git is not None and git["dirty"] else None)
    version |= {"data_sets": without_credentials(list(data_sets))} if data_sets else {}
    version |= {"hardware": dict(hardware)} if hardware else {}
    write_file(path, json.dumps([*starts, version], indent=1))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration of a run, or of an export."""
    write_file(folder / CONFIG_NAME, dump_yaml({**config, FORMAT_KEY: FORMAT}))


class Git(TypedDict):
    """The checkout that a run was started from."""

    commit: str
    dirty: NotRequired[bool]
    """Whether files differed from the commit, or were not tracked."""
    diff: NotRequired[str | None]
    """File in the run's folder with the changes of tracked files; ``None`` without any."""


class DataIdentity(TypedDict):
    """A set that a run is trained on."""

    path: str
    checksum: str
    """Of ``shards.parquet``, which holds that of each shard."""
    num_samples: int
    """Samples to train on."""


class Versions(TypedDict):
    """The versions at one start of a run; those that earlier versions of this project did not record may be missing."""

    packages: dict[str, str]
    time: NotRequired[str]
    python: NotRequired[str]
    platform: NotRequired[str]
    git: NotRequired[Git | None]
    data_sets: NotRequired[list[DataIdentity]]
    hardware: NotRequired[dict[str, Any]]
    """See ``vdm.training.hardware``."""


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


def _record_diff(run: Path) -> str | None:
    """Write the changes to the code since its commit into the run's folder, and return the name of the file.

    Starts with the same changes share one file.
    """
    diff = git_diff()
    if not diff:
        return None
    name = f"code-{hashlib.blake2b(diff.encode(), digest_size=4).hexdigest()}.diff"
    if not (run / name).exists():
        write_file(run / name, diff)
    return name


def _versions(git: GitVersion | None, diff: str | None) -> dict[str, Any]:
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": None if git is None else {**git, "diff": diff},
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
