"""Classes of the user's own: where their packages are looked for, and what is said where one is missing."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vdm.config import ConfigError
from vdm.config.targets import targets_in


def make_importable() -> None:
    """Let packages in the current folder be imported, after all others: none of them stands in for an installed one."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def refuse_missing(config: Mapping[str, Any], started_in: str | None) -> None:
    """Refuse to go on with a run here whose packages are perhaps in the folder in which it was started.

    Args:
        config: The run's configuration.
        started_in: That folder, if it was recorded.

    Raises:
        ConfigError: In one line that names package and folder.
    """
    if started_in is None or Path(started_in) == Path.cwd():
        return
    for node, key in targets_in(config, ""):
        package = str(node["_target_"]).partition(".")[0]
        if package.isidentifier() and package not in sys.modules and find_spec(package) is None:
            raise ConfigError(
                f"{key}._target_: there is no package '{package}' here; the run was started in {started_in}, whose"
                " packages are found from there: resume it in that folder"
            )
