"""A run's relative ``data.path``, which starts from the folder in which training was started."""

from pathlib import Path

STARTED_IN = "started_in"
"""Key of a recorded configuration: the folder in which ``vdm train`` was started."""


def found_again(path: str | dict[str, float], started_in: str | None) -> str | dict[str, float]:
    """Return a recorded ``data.path`` as seen from the current folder.

    A relative folder is searched in the folder in which training was started. If it is not there, because the project
    was moved, or if that folder was not recorded, the path starts from the current folder.

    Args:
        path: A folder or a URL, or several with their shares.
        started_in: Folder in which training was started, if recorded.
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
