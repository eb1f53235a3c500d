"""The git checkout that the code runs from."""

import os
import subprocess
from pathlib import Path
from typing import TypedDict


class GitVersion(TypedDict):
    """The version of a checkout."""

    commit: str
    """The full hash."""
    dirty: bool
    """Whether files differ from the commit, or are not tracked."""


def git_version() -> GitVersion | None:
    """Return the version of the checkout; ``None`` if the code is not in one, or git is missing or fails."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    # Git sets these for its hooks; they would lead to the repository that the command was started in.
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # While `status` held a lock of the repository, a commit that the user makes would fail.
    commands = (["rev-parse", "HEAD"], ["--no-optional-locks", "status", "--porcelain"])
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True, env=elsewhere
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}
