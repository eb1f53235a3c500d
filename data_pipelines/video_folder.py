"""A folder of videos as the input of a build."""

from pathlib import Path

from data_pipelines.annotations import find_manifest, label_names, merge, read_manifest, read_sidecars
from data_pipelines.clips import VideoFile
from data_pipelines.settings import BuildSettings, ClipSettings
from data_pipelines.sources import Annotation, Inputs, list_videos, printable


def read_video_folder(settings: BuildSettings) -> Inputs:
    """List the videos of ``settings.input`` with their captions and labels.

    Raises:
        ValueError: In one line, if there is no such folder, no video in it, or the manifest can't be used.
    """
    folder = Path(settings.input)
    if not folder.is_dir():
        kind = "is a file, not a folder of videos" if folder.exists() else "no such folder"
        raise ValueError(f"input={settings.input}: {kind}; give a folder of videos, or moving_digits")
    manifest = find_manifest(folder, settings.manifest)
    rows = read_manifest(manifest, folder) if manifest else {}
    videos, others = list_videos(folder, excluded=settings.output)
    if not videos:
        raise ValueError(f"input={settings.input}: no video among its {len(others)} files")
    sources = [_video_file(path, folder, settings.resolved_clip()) for path in videos]

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
        ignored=tuple(printable(path.relative_to(folder)) for path in others),
        faults=faults,
    )


def _video_file(path: Path, folder: Path, settings: ClipSettings) -> VideoFile:
    try:
        status = path.stat()
        fingerprint = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:  # a link to nowhere: reading it will say so
        fingerprint = "missing"
    return VideoFile(path, printable(path.relative_to(folder).as_posix()), fingerprint, settings)
