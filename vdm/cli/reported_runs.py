"""The runs that a report is asked for: some by name, or all those below a folder, such as a sweep's."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from vdm.checkpoints.layout import CHECKPOINTS_NAME, CONFIG_NAME
from vdm.cli.run_search import find_runs
from vdm.found_instead import found_instead

MAX_RUNS = 500


def reported_runs(paths: Sequence[Path]) -> dict[str, Path]:
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
    if path.parent.name == CHECKPOINTS_NAME and (path.parent.parent / CONFIG_NAME).is_file():
        return [path.parent.parent]
    if not path.is_dir():
        missing = "is a file" if path.exists() else "no such folder"
        raise ValueError(f"run={path}: {missing}; give the folder of a run, or one with runs in it")
    below = sorted(islice(find_runs(path), MAX_RUNS + 1), key=lambda run: [_natural(part) for part in run.parts])
    if not below:
        raise ValueError(f"run={path}: not a run, nor is there one in it{found_instead(path)}")
    return below


def _natural(name: str) -> tuple[int, str]:
    """Sort the runs of a sweep, whose names begin with a number, by that."""
    number = name.partition("_")[0]
    return (int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1, name)


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    whole = [folder.absolute() for folder in folders]
    if len(whole) == 1:
        return {"/".join(whole[0].parts[-2:]).lstrip("/"): folders[0]}
    shared = min(len(Path(os.path.commonpath(whole)).parts), *(len(path.parts) - 1 for path in whole))
    return {"/".join(path.parts[shared:]): folder for path, folder in zip(whole, folders, strict=True)}
