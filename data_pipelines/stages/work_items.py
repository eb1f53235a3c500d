"""A stage's work, one file of videos at a time: what is finished is kept and not done again."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_pipelines.clips import ChosenClip, VideoFile, choose
from data_pipelines.executors.base import Executor
from data_pipelines.manifest import ClipRow, VideoRow, by_source, read_rows, write_rows
from data_pipelines.progress import progress_bar
from data_pipelines.sources import source_key

Task = TypeVar("Task")
Row = TypeVar("Row", VideoRow, ClipRow)


@dataclass(frozen=True)
class FileResult(Generic[Row]):
    """What a stage made of one file."""

    rows: tuple[Row, ...]
    fault: str | None = None
    """What was wrong with the file, in one line, even where some rows came of it."""


@dataclass(frozen=True)
class WorkFolder:
    """What is finished of all stages, and where the rest is done."""

    path: Path
    executor: Executor

    def manifest(self, stage: str) -> Path:
        """Return the table of a stage's rows."""
        return self.path / "manifests" / f"{stage}.parquet"

    def results(self, stage: str) -> Path:
        """Return the folder of a stage's results, one file each."""
        return self.path / "units" / stage

    @property
    def locks(self) -> Path:
        """See ``Executor.run``."""
        return self.path / "claims"


def run_items(
    stage: str,
    tasks: Mapping[str, Task],
    digests: Mapping[str, str],
    work: Callable[[Task], FileResult[Row]],
    kind: type[Row],
    folder: WorkFolder,
) -> dict[str, FileResult[Row]]:
    """Do a stage's work on every file, that apart which is done already.

    Args:
        stage: Its name.
        tasks: What ``work`` needs to know of each file, by the file's name.
        digests: By the same names: they change when the result would.
        work: Importable by its name. May raise ``UnavailableError``: then the file is tried again next time.
        kind: Of the rows.
        folder: Where results are kept.

    Returns:
        By the names, in their order, what came of each file.
    """
    results = folder.results(stage)
    results.mkdir(parents=True, exist_ok=True)
    names = {f"{source_key(source)}-{digests[source]}": source for source in tasks}
    paths = {name: results / f"{name}.parquet" for name in names}
    there = {path.stem for path in results.glob("*.parquet")}
    found = {name: outcome for name in names if name in there and (outcome := _finished(paths[name], kind)) is not None}
    todo = {name: (tasks[source], paths[name]) for name, source in names.items() if name not in found}
    failed = run_missing(stage, "file", partial(_work, work, kind), todo, folder)
    for name in todo:
        found[name] = FileResult((), failed[name]) if name in failed else _outcome(paths[name], kind)
    return {source: found[name] for name, source in names.items()}


def _finished(path: Path, kind: type[Row]) -> FileResult[Row] | None:
    """Return a result from before, or None if it is damaged: then it is made anew."""
    try:
        return _outcome(path, kind)
    except ValueError:
        return None


def _outcome(path: Path, kind: type[Row]) -> FileResult[Row]:
    rows, notes = read_rows(path, kind)
    return FileResult(tuple(rows), notes.get("fault"))


def _work(work: Callable[[Any], FileResult[Any]], kind: type[Any], task: tuple[Any, Path]) -> None:
    outcome = work(task[0])
    write_rows(task[1], kind, outcome.rows, {} if outcome.fault is None else {"fault": outcome.fault})


@dataclass(frozen=True)
class ClipTask:
    """Clips of one file that a stage is to look at."""

    video: VideoFile
    """With the clips chosen."""
    rows: tuple[ClipRow, ...]
    node: str
    """The configuration of what looks at them, as JSON."""


def run_clip_items(
    stage: str,
    rows: Sequence[ClipRow],
    videos: Mapping[str, VideoFile],
    node: str,
    work: Callable[[ClipTask], FileResult[ClipRow]],
    folder: WorkFolder,
) -> tuple[dict[str, ClipRow], dict[str, str]]:
    """Do a stage's work on every clip, those apart that it has seen before, whatever others were asked for then.

    Args:
        stage: Its name.
        rows: The clips.
        videos: The files, by name.
        node: The configuration of what looks at the clips, as JSON.
        work: Importable by its name. Looks at clips of one file.
        folder: Where results are kept.

    Returns:
        What was found, by key of the clip, and faults by file.
    """
    folder.results(stage).mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    todo: dict[str, tuple[ClipTask, Path]] = {}
    for source, clips in by_source(rows).items():
        video = videos[source]
        name = f"{source_key(source)}-{digest(video.fingerprint, video.settings.num_frames, video.settings.fps, node)}"
        paths[source] = folder.results(stage) / f"{name}.parquet"
        seen = {row.key for row in _seen(paths[source])[0]}
        if missing := [row for row in clips if row.key not in seen]:
            task = ClipTask(choose(video, [ChosenClip(r.key, r.start_seconds) for r in missing]), tuple(missing), node)
            todo[f"{name}-{digest([row.key for row in missing])}"] = task, paths[source]
    failed = run_missing(stage, "file", partial(_work_on_clips, work), todo, folder)
    faults = {todo[name][0].video.name: fault for name, fault in failed.items()}
    found: dict[str, ClipRow] = {}
    for source, path in paths.items():
        seen, notes = _seen(path)
        found |= {row.key: row for row in seen}
        if fault := notes.get("fault"):
            faults.setdefault(source, fault)
    return found, faults


def _work_on_clips(work: Callable[[ClipTask], FileResult[ClipRow]], task: tuple[ClipTask, Path]) -> None:
    outcome = work(task[0])
    before, notes = _seen(task[1])
    if outcome.fault is not None:
        notes["fault"] = outcome.fault
    write_rows(task[1], ClipRow, [*before, *outcome.rows], notes)


def _seen(path: Path) -> tuple[list[ClipRow], dict[str, str]]:
    """Return what was found before; nothing if it is damaged, so that it is made anew."""
    try:
        return read_rows(path, ClipRow) if path.exists() else ([], {})
    except ValueError:
        return [], {}


def run_missing(
    stage: str, unit: str, work: Callable[[Any], None], todo: Mapping[str, Any], folder: WorkFolder
) -> dict[str, str]:
    """Do what is left of a stage's work, with a progress bar.

    Args:
        stage: Its name.
        unit: What the items are, for people to read.
        work: See ``Executor.run``.
        todo: The items, by names as ``Executor.run`` wants them.
        folder: Where this is done.

    Returns:
        Why what could not be done was not, by name.
    """
    failed: dict[str, str] = {}
    with progress_bar(len(todo), stage, unit) as bar:
        for name, fault in folder.executor.run(work, todo, folder.locks / stage):
            if fault is not None:
                failed[name] = fault
            bar.update()
    return failed


def digest(*content: Any) -> str:
    """Return a digest of plain values, 16 digits long."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
