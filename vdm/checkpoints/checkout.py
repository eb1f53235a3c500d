"""The git checkout that the code runs from."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TypedDict

MAX_DIFF_BYTES = 1 << 20
"""How much of the changes to a checkout is recorded."""
_SECONDS = 10.0
"""How long git may take for the changes."""


class GitVersion(TypedDict):
    """The version of a checkout."""

    commit: str
    """The full hash."""
    dirty: bool
    """Whether files differ from the commit, or are not tracked."""


def git_version() -> GitVersion | None:
    """Return the version of the checkout; ``None`` if the code is not in one, or git is missing or fails."""
    # While `status` held a lock of the repository, a commit that the user makes would fail.
    commands = (["rev-parse", "HEAD"], ["--no-optional-locks", "status", "--porcelain"])
    root = _root()
    if root is None:
        return None
    try:
        commit, changes = (
            subprocess.run(
                _git(root, *command), capture_output=True, text=True, check=True, env=_variables()
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def git_diff() -> str:
    """Return the changes of tracked files since the commit; empty without any, and if git is missing or fails.

    Of more than ``MAX_DIFF_BYTES`` the rest is left out, which the last line then says.
    """
    root = _root()
    if root is None:
        return ""
    # No program that the user's configuration names for showing differences.
    command = _git(root, "--no-optional-locks", "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    try:
        with tempfile.TemporaryFile() as file:
            subprocess.run(
                command, stdout=file, stderr=subprocess.DEVNULL, check=True, env=_variables(), timeout=_SECONDS
            )
            size = file.tell()
            file.seek(0)
            text = file.read(MAX_DIFF_BYTES).decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
    return text if size <= MAX_DIFF_BYTES else f"{text}\n... {size - MAX_DIFF_BYTES} further bytes are left out\n"


def _root() -> Path | None:
    root = Path(__file__).resolve().parents[2]
    return root if (root / ".git").exists() else None


def _git(root: Path, *arguments: str) -> list[str]:
    return ["git", "-C", str(root), *arguments]


def _variables() -> dict[str, str]:
    """Return the environment without what Git sets for its hooks: it leads to the repository of the command."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
