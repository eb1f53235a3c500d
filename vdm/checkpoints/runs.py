"""A run's folder: its configuration, the versions it was made with, and its checkpoints.

::

    runs/NAME/TIME/
        config.yaml                  the whole configuration, resolved
        versions.json                code and packages, once per start
        checkpoints/step=00000500/   see lightning_io.py
"""

import json
import logging
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from vdm.checkpoints.folder import REPLACED_SUFFIX, remove_folder, verify_folder, write_file

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_NAME, VERSIONS_NAME, CHECKPOINTS_NAME = "config.yaml", "versions.json", "checkpoints"

_log = logging.getLogger(__name__)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where a run's checkpoint after ``step`` optimizer steps lies."""
    return run / CHECKPOINTS_NAME / f"step={step:08d}"


def run_folder(path: Path) -> Path:
    """Return the folder of the run that ``path``, a run or one of its checkpoints, belongs to.

    Raises:
        ValueError: If it belongs to none.
    """
    for folder in (path, path.parent.parent):
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise ValueError(f"{path}: not a run: there is no {CONFIG_NAME}" + ("" if path.exists() else ", nor such a folder"))


def record_run(run: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration, and add the versions of code and packages to those of earlier starts."""
    write_file(run / CONFIG_NAME, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    path = run / VERSIONS_NAME
    starts = json.loads(path.read_text()) if path.exists() else []
    write_file(path, json.dumps([*starts, _versions()], indent=1))


def load_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a run, or of the run of a checkpoint; nothing in it is interpolated.

    Raises:
        ValueError: If there is none or it is not a mapping.
    """
    file = run_folder(path) / CONFIG_NAME
    config: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    if not isinstance(config, dict):
        raise ValueError(f"{file}: not a configuration")
    return config


def latest_checkpoint(path: Path) -> Path:
    """Return a run's latest whole checkpoint, or ``path`` itself where it is a whole checkpoint.

    Damaged ones are passed over with a warning.

    Raises:
        ValueError: If there is none, or ``path`` is a damaged checkpoint.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    if not (path / CHECKPOINTS_NAME).is_dir():
        verify_folder(path)
        return path
    for folder in reversed(_checkpoints(path)):
        try:
            verify_folder(folder)
        except ValueError as error:
            _log.warning("Passing over a checkpoint: %s", error)
        else:
            return folder
    raise ValueError(f"{path / CHECKPOINTS_NAME}: there is no whole checkpoint")


def load_weights(path: Path, ema: bool = True) -> dict[str, "Tensor"]:
    """Return all weights of a checkpoint, or of a run's latest one, by name.

    Args:
        path: Folder of a run or of a checkpoint.
        ema: Take averaged weights for those that have an average.
    """
    from safetensors.torch import load_file  # imports torch, which a resumed run's folder is found without

    folder = latest_checkpoint(path)
    weights = load_file(folder / "model.safetensors")
    if ema and (folder / "ema.safetensors").exists():
        weights |= load_file(folder / "ema.safetensors")
    return weights


def prune(run: Path, keep_last: int) -> None:
    """Remove all but a run's last ``keep_last`` checkpoints, at least 1, and what interrupted saving left behind."""
    if keep_last < 1:
        raise ValueError(f"keep_last: {keep_last} is not allowed: at least 1 checkpoint is kept")
    for folder in (run / CHECKPOINTS_NAME).glob(".*.partial"):
        remove_folder(folder)
    for folder in _checkpoints(run)[:-keep_last]:
        remove_folder(folder)


def _checkpoints(run: Path) -> list[Path]:
    """Return a run's checkpoints in order of steps; a former version comes before the one that replaces it."""
    pattern = re.compile(rf"step=(\d+){REPLACED_SUFFIX}?")
    steps = {folder: pattern.fullmatch(folder.name) for folder in (run / CHECKPOINTS_NAME).glob("step=*")}
    found = [
        (int(match.group(1)), not folder.name.endswith(REPLACED_SUFFIX), folder)
        for folder, match in steps.items()
        if match
    ]
    return [folder for _, _, folder in sorted(found)]


def _versions() -> dict[str, Any]:
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_version(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _git_version() -> dict[str, Any] | None:
    """Return the checkout's commit and whether files differ from it; None where the code is no checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain"])
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}
