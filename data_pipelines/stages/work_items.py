"""The work of a stage as items, one for each video file; results are cached and not computed again."""

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
    """Result of a stage for one file."""

    rows: tuple[Row, ...]
    fault: str | None = None
    """What was wrong with the file, in one line; there may be rows nevertheless."""


@dataclass(frozen=True)
class WorkFolder:
    """The folder with the results of all stages, and the executor that computes them."""

    path: Path
    executor: Executor

    def manifest(self, stage: str) -> Path:
        """Return the path of the table of a stage."""
        return self.path / "manifests" / f"{stage}.parquet"

    def results(self, stage: str) -> Path:
        """Return the folder of the cached results of a stage."""
        return self.path / "units" / stage

    @property
    def locks(self) -> Path:
        """See ``Executor.run``."""
        return self.path / "locks"


def run_items(
    stage: str,
    tasks: Mapping[str, Task],
    digests: Mapping[str, str],
    work: Callable[[Task], FileResult[Row]],
    kind: type[Row],
    folder: WorkFolder,
) -> dict[str, FileResult[Row]]:
    """Call ``work`` for every file without a cached result.

    Args:
        stage: Name of the stage.
        tasks: Argument of ``work`` by name of the file.
        digests: By the same names; a digest changes whenever the result would.
        work: Importable by its name. May raise ``UnavailableError``; then the file is tried again in the next run.
        kind: Class of the rows.
        folder: Keeps the results.

    Returns:
        The result by name of the file, in the order of ``tasks``.
    """
    results = folder.results(stage)
    results.mkdir(parents=True, exist_ok=True)
    names = {f"{source_key(source)}-{digests[source]}": source for source in tasks}
    paths = {name: results / f"{name}.parquet" for name in names}
    there = {path.stem for path in results.glob("*.parquet")}
    found = {name: result for name in names if name in there and (result := _finished(paths[name], kind)) is not None}
    todo = {name: (tasks[source], paths[name]) for name, source in names.items() if name not in found}
    failed = run_missing(stage, "file", partial(_work, work, kind), todo, folder)
    for name in todo:
        found[name] = FileResult((), failed[name]) if name in failed else _read_result(paths[name], kind)
    return {source: found[name] for name, source in names.items()}


def _finished(path: Path, kind: type[Row]) -> FileResult[Row] | None:
    """Return a cached result; None if it is damaged, so that it is computed again."""
    try:
        return _read_result(path, kind)
    except ValueError:
        return None


def _read_result(path: Path, kind: type[Row]) -> FileResult[Row]:
    rows, notes = read_rows(path, kind)
    return FileResult(tuple(rows), notes.get("fault"))


def _work(work: Callable[[Any], FileResult[Any]], kind: type[Any], task: tuple[Any, Path]) -> None:
    result = work(task[0])
    write_rows(task[1], kind, result.rows, {} if result.fault is None else {"fault": result.fault})


@dataclass(frozen=True)
class ClipTask:
    """Clips of one file for a stage to decode."""

    video: VideoFile
    """The file, as a source of these clips alone."""
    rows: tuple[ClipRow, ...]
    node: str
    """Configuration of the component that receives the clips, as JSON."""


def run_clip_items(
    stage: str,
    rows: Sequence[ClipRow],
    videos: Mapping[str, VideoFile],
    node: str,
    work: Callable[[ClipTask], FileResult[ClipRow]],
    folder: WorkFolder,
) -> tuple[dict[str, ClipRow], dict[str, str]]:
    """Call ``work`` for the clips without a cached result; results are cached for each clip.

    Args:
        stage: Name of the stage.
        rows: The clips.
        videos: The files, by name.
        node: Configuration of the component that receives the clips, as JSON.
        work: Importable by its name. Processes clips of one file.
        folder: Keeps the results.

    Returns:
        The resulting rows by key of the clip, and faults by file.
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
    result = work(task[0])
    before, notes = _seen(task[1])
    if result.fault is not None:
        notes["fault"] = result.fault
    write_rows(task[1], ClipRow, [*before, *result.rows], notes)


def _seen(path: Path) -> tuple[list[ClipRow], dict[str, str]]:
    """Return the cached rows and notes; none if they are damaged, so that they are computed again."""
    try:
        return read_rows(path, ClipRow) if path.exists() else ([], {})
    except ValueError:
        return [], {}


def run_missing(
    stage: str, unit: str, work: Callable[[Any], None], todo: Mapping[str, Any], folder: WorkFolder
) -> dict[str, str]:
    """Let the executor do the missing items of a stage, with a progress bar.

    Args:
        stage: Name of the stage.
        unit: Unit of the progress bar.
        work: See ``Executor.run``.
        todo: The items; see ``Executor.run``.
        folder: Its executor does the work.

    Returns:
        For each failed item, by its name, the reason.
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
