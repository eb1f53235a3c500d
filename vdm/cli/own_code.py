"""Users' own classes: where their packages are found, and the message if one is missing."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vdm.config import ConfigError
from vdm.config.targets import targets_in


def make_importable() -> None:
    """Make packages in the current folder importable, after all others, so that none replaces an installed one."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def refuse_missing(config: Mapping[str, Any], started_in: str | None) -> None:
    """Refuse to resume a run whose packages are missing here, and may be in the folder in which it was started.

    Args:
        config: Configuration of the run.
        started_in: The folder in which the run was started, if it was recorded.

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
