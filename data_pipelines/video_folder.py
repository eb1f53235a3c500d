"""A folder of videos as the input of a build."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from data_pipelines.annotations import Annotation, label_names, merge
from data_pipelines.caption_sidecars import Sidecars, read_sidecars, spelling
from data_pipelines.caption_tables import Manifest, read_manifest
from data_pipelines.clips import VideoFile
from data_pipelines.recordings import find_recordings, recording_note
from data_pipelines.settings import HDR, ClipSettings, check_videos
from data_pipelines.sources import Inputs
from vdm.data.video_listing import list_videos, unread_animation
from vdm.text import well_formed


def read_video_folder(
    input: str, manifest: Path | None, excluded: Collection[Path], clip: ClipSettings, hdr: HDR = "map"
) -> Inputs[VideoFile]:
    """List the videos of a folder with their captions and labels.

    Args:
        input: The folder.
        manifest: Table of captions and labels; None looks for one in the folder.
        excluded: Sub-folders to leave out, such as that of the shards.
        clip: Shape, rate and stride of the clips.
        hdr: Whether videos of high dynamic range are mapped or left out.

    Raises:
        ValueError: In one line, if the folder does not exist or has no video, or the manifest can't be used.
    """
    folder = Path(input)
    manifest = check_videos(input, manifest)
    table = read_manifest(manifest, folder) if manifest else Manifest({}, ())
    found, others = list_videos(folder, excluded)
    videos, links = _without_links(found)
    if not videos:
        raise ValueError(f"input={input}: no video among its {len(others)} files")
    sources = _with_unique_names([_video_file(path, folder, clip, hdr) for path in videos])

    rows, faults = _match(table, sources, folder)
    animated = {path: kind for path in others if (kind := unread_animation(path)) is not None}
    for path, kind in animated.items():
        name = well_formed(path.relative_to(folder).as_posix())
        faults[name] = f"is an animated {kind}, which is not read; make it a video"
    annotations: dict[str, Annotation] = {}
    used = {*table.files, *animated}
    encodings: dict[str, list[Path]] = {}
    sidecars = Sidecars(path for path in others if path not in used)
    for source in sources:
        beside = read_sidecars(sidecars.of(source.path))
        annotations[source.name] = merge(rows.get(source.name, Annotation()), beside.annotation)
        used.update(beside.used)
        if beside.faults:
            faults[source.name] = "; ".join(beside.faults)
        for path, encoding in beside.encodings:
            encodings.setdefault(encoding, []).append(path)
    annotated = {name: one.recording for name, one in annotations.items() if one.recording}
    recordings = find_recordings(sources, others, annotated)
    return Inputs(
        recordings=recordings,
        sources=tuple(sources),
        labels=label_names(annotations.values()),
        annotations=annotations,
        ignored=tuple(well_formed(str(path.relative_to(folder))) for path in others if path not in used),
        faults=faults,
        notes=(
            *table.notes,
            *(_note(encoding, paths) for encoding, paths in encodings.items()),
            *(_link_note(link.relative_to(folder), path.relative_to(folder)) for link, path in links.items()),
            *recording_note(recordings),
        ),
    )


def _note(encoding: str, texts: Sequence[Path]) -> str:
    paths = list(dict.fromkeys(texts))
    return f"{paths[0].name}{f' and {len(paths) - 1} others' if len(paths) > 1 else ''}: read as {encoding}"


def _without_links(videos: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Leave out links to other videos of the list, so that no file is in training and in validation.

    Returns:
        The remaining videos, and the target of each link that is left out.
    """
    if not any(path.is_symlink() for path in videos):  # without links to files no file is listed twice
        return list(videos), {}
    by_place: dict[Hashable, Path] = {}
    links: dict[Path, Path] = {}
    for path in sorted(videos, key=lambda path: (path.is_symlink(), path)):
        first = by_place.setdefault(_resolved(path) or path, path)
        if first != path:
            links[path] = first
    return [path for path in videos if path not in links], links


def _link_note(link: Path, path: Path) -> str:
    return f"{link.as_posix()}: is the same file as {path.as_posix()}, which is taken once"


def _match(table: Manifest, sources: Sequence[VideoFile], folder: Path) -> tuple[dict[str, Annotation], dict[str, str]]:
    """Assign the rows of a manifest to videos.

    A row belongs to the video with its name, whatever the Unicode form and the kind of slashes; else to all videos that
    are the same file by another path, such as through a symbolic link.

    Returns:
        Annotations by name of the video; and for each row without a video, by its name, the reason.

    Raises:
        ValueError: In one line, if two rows have different annotations for one video.
    """
    if not table.rows:
        return {}, {}
    exact = {source.name: [source] for source in sources}
    spelled = _grouped(sources, lambda source: spelling(source.name))
    given: dict[str, tuple[str, Annotation]] = {}

    def give(name: str, found: Sequence[VideoFile]) -> None:
        for source in found:
            other, annotation = given.setdefault(source.name, (name, table.rows[name]))
            if annotation != table.rows[name]:
                raise ValueError(
                    f"{table.files[0]}: {other} and {name} are one file, with different captions or labels"
                )

    left: list[str] = []
    for name in table.rows:
        plain = name.replace("\\", "/").removeprefix("./")
        if found := exact.get(name) or spelled.get(spelling(name)) or spelled.get(spelling(plain)):
            give(name, found)
        else:
            left.append(name)
    faults: dict[str, str] = {}
    real = _grouped(sources, lambda source: _resolved(source.path)) if left else {}
    for name in left:
        path = _resolved(folder / name.replace("\\", "/"))
        if found := real.get(path, []) if path else []:
            give(name, [source for source in found if source.name not in given] or found)
        else:
            faults[name] = f"is in {table.files[0]} but {_reason(path, folder)}"
    return {source: annotation for source, (_, annotation) in given.items()}, faults


def _reason(path: Path | None, folder: Path) -> str:
    try:
        is_file = path is not None and path.is_file()
    except OSError:  # such as for a name that is too long
        is_file = False
    if path is None or not is_file:
        return "not in the folder"
    if not path.is_relative_to(folder.resolve()):
        return f"lies outside of {folder}"
    return "is no video, or hidden"


def _grouped(sources: Sequence[VideoFile], key: Callable[[VideoFile], Hashable]) -> dict[Hashable, list[VideoFile]]:
    groups: dict[Hashable, list[VideoFile]] = {}
    for source in sources:
        groups.setdefault(key(source), []).append(source)
    return groups


def _resolved(path: Path) -> Path | None:
    """Return the real path; None if it can't be resolved."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # circular links, lone surrogates, null characters
        return None


def _with_unique_names(videos: Sequence[VideoFile]) -> list[VideoFile]:
    """Make names unique that differ only in bytes that are not text."""
    counts = Counter(video.name for video in videos)
    return [replace(one, name=f"{one.name} ({_digest(one.path)})") if counts[one.name] > 1 else one for one in videos]


def _digest(path: Path) -> str:
    return hashlib.blake2b(os.fsencode(path.name), digest_size=4).hexdigest()


def _video_file(path: Path, folder: Path, settings: ClipSettings, hdr: HDR) -> VideoFile:
    try:
        status = path.stat()
        fingerprint = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:  # a dangling link: the error is reported when it is read
        fingerprint = "missing"
    return VideoFile(path, well_formed(path.relative_to(folder).as_posix()), fingerprint, settings, hdr)
