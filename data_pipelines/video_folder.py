"""A folder of videos as the input of a build."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from data_pipelines.annotations import Annotation, label_names, merge, read_manifest, read_sidecars
from data_pipelines.clips import VideoFile
from data_pipelines.settings import ClipSettings, check_videos
from data_pipelines.sources import Inputs, list_videos
from vdm.text import well_formed


def read_video_folder(
    input: str, manifest: Path | None, excluded: Collection[Path], clip: ClipSettings
) -> Inputs[VideoFile]:
    """List the videos of a folder with their captions and labels.

    Args:
        input: The folder.
        manifest: Table of captions and labels; None looks for one in the folder.
        excluded: Sub-folders that are no input.
        clip: What the clips are to look like.

    Raises:
        ValueError: In one line, if there is no such folder, no video in it, or the manifest can't be used.
    """
    folder = Path(input)
    manifest = check_videos(input, manifest)
    rows = read_manifest(manifest, folder) if manifest else {}
    videos, others = list_videos(folder, excluded)
    if not videos:
        raise ValueError(f"input={input}: no video among its {len(others)} files")
    sources = _told_apart([_video_file(path, folder, clip) for path in videos])

    annotations: dict[str, Annotation] = {}
    faults = {name: f"is in {manifest} but not in the folder" for name in rows if not (folder / name).is_file()}
    for source in sources:
        beside = Annotation()
        try:
            beside = read_sidecars(source.path)
        except ValueError as error:
            faults[source.name] = str(error)
        annotations[source.name] = merge(rows.get(source.name, Annotation()), beside)
    return Inputs(
        sources=tuple(sources),
        labels=label_names(annotations.values()),
        annotations=annotations,
        ignored=tuple(well_formed(str(path.relative_to(folder))) for path in others),
        faults=faults,
    )


def _told_apart(videos: Sequence[VideoFile]) -> list[VideoFile]:
    """Give names of their own to files whose names differ in bytes that are no text."""
    counts = Counter(video.name for video in videos)
    return [replace(one, name=f"{one.name} ({_digest(one.path)})") if counts[one.name] > 1 else one for one in videos]


def _digest(path: Path) -> str:
    return hashlib.blake2b(os.fsencode(path.name), digest_size=4).hexdigest()


def _video_file(path: Path, folder: Path, settings: ClipSettings) -> VideoFile:
    try:
        status = path.stat()
        fingerprint = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:  # a link to nowhere: reading it will say so
        fingerprint = "missing"
    return VideoFile(path, well_formed(path.relative_to(folder).as_posix()), fingerprint, settings)
