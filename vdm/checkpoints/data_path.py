"""A run's relative ``data.path``, which starts from the folder in which training was started."""

from pathlib import Path

from vdm.data.shard_lists import SEPARATOR, listed_sets

STARTED_IN = "started_in"
"""Key of a recorded configuration: the folder in which ``vdm train`` was started."""


def resolve_data_path(path: str | dict[str, float], started_in: str | None) -> str | dict[str, float]:
    """Return a recorded ``data.path`` as seen from the current folder.

    A relative folder is searched in the folder in which training was started. If it is not there, because the project
    was moved, or if that folder was not recorded, the path starts from the current folder.

    Args:
        path: A folder or a URL, a list of them (see ``vdm.data.shard_lists``), or several with their shares.
        started_in: Folder in which training was started, if recorded.
    """
    if started_in is None:
        return path
    if isinstance(path, dict):
        return {_resolve_list(one, started_in): share for one, share in path.items()}
    return _resolve_list(path, started_in)


def _resolve_list(path: str, started_in: str) -> str:
    is_folder = any(folder.is_dir() for folder in (Path(path), Path(started_in) / path))
    parts = [path] if is_folder else path.split(SEPARATOR)
    return SEPARATOR.join(_resolve_part(part, started_in) for part in parts)


def _resolve_part(part: str, started_in: str) -> str:
    if "://" in part or Path(part).is_absolute():
        return part
    there = str(Path(started_in) / part)
    try:
        folders, folders_here = ([Path(one.path) for one in listed_sets(text)] for text in (there, part))
    except ValueError:  # the path is refused, with the reason, when it is opened
        return part
    is_there = all(folder.is_dir() for folder in folders)
    is_here = [folder.resolve() for folder in folders] == [folder.resolve() for folder in folders_here]
    return there if is_there and not is_here else part
