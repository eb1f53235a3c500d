"""The runs that a report is asked for: some by name, or all those below a folder, such as a sweep's."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vdm.checkpoints.layout import CONFIG_NAME
from vdm.found_instead import found_instead

MAX_RUNS = 500
_MAX_DEPTH = 3
"""Levels below a folder at which runs lie: NAME/TIME/NUMBER."""


def find_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the folders of all runs by their names on the page: the ends of their paths, as far as they differ.

    Args:
        paths: Runs, checkpoints of runs, or folders with runs in them.

    Raises:
        ValueError: In one line, if there is no run at one of the paths, or there are too many.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for folder in _runs_at(path):
            found.setdefault(folder.resolve(), folder)
            if len(found) > MAX_RUNS:
                raise ValueError(f"run={path}: more than {MAX_RUNS} runs; choose fewer")
    return _named(list(found.values()))


def _runs_at(path: Path) -> list[Path]:
    if (path / CONFIG_NAME).is_file():
        return [path]
    if path.parent.name == "checkpoints" and (path.parent.parent / CONFIG_NAME).is_file():
        return [path.parent.parent]
    if not path.is_dir():
        missing = "is a file" if path.exists() else "no such folder"
        raise ValueError(f"run={path}: {missing}; give the folder of a run, or one with runs in it")
    below = list(_below(path, _MAX_DEPTH))
    if not below:
        raise ValueError(f"run={path}: not a run, nor is there one in it{found_instead(path)}")
    return below


def _below(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), key=_natural)
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        if (path / CONFIG_NAME).is_file():
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _natural(name: str) -> tuple[int, str]:
    """Sort the runs of a sweep, whose names begin with a number, by that."""
    number = name.partition("_")[0]
    return (int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1, name)


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    whole = [folder.absolute() for folder in folders]
    if len(whole) == 1:
        (one,) = whole
        return {"/".join(one.parts[-2:]).lstrip("/"): folders[0]}
    shared = min(len(Path(os.path.commonpath(whole)).parts), *(len(path.parts) - 1 for path in whole))
    return {"/".join(path.parts[shared:]): folder for path, folder in zip(whole, folders, strict=True)}
