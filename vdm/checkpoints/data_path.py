"""A run's ``data.path`` where it is relative: it counts from the folder in which training was started."""

from pathlib import Path

STARTED_IN = "started_in"
"""Key of a recorded configuration: the folder in which ``vdm train`` was started."""


def found_again(path: str | dict[str, float], started_in: str | None) -> str | dict[str, float]:
    """Return a recorded ``data.path`` as it is to be read from the present folder.

    A relative folder is looked for where training was started. If it is not there, as when a project's folder was
    moved, or nothing was recorded, it counts from the present folder.

    Args:
        path: A folder or a URL, or several with their shares.
        started_in: Folder in which training was started, if that was recorded.
    """
    if started_in is None:
        return path
    if isinstance(path, dict):
        return {_found(one, started_in): share for one, share in path.items()}
    return _found(path, started_in)


def _found(path: str, started_in: str) -> str:
    there = Path(started_in) / path
    if "://" in path or Path(path).is_absolute() or not there.is_dir() or there.resolve() == Path(path).resolve():
        return path
    return str(there)
