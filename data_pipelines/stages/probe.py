"""Stage probe: the header, first frame and checksum of each file."""

from collections.abc import Sequence
from dataclasses import replace

from data_pipelines.clips import VideoFile
from data_pipelines.decoding import shown_size
from data_pipelines.manifest import VideoRow, kept
from data_pipelines.sources import LeftOutError, SourceError, UnavailableError
from data_pipelines.stages.work_items import FileResult, WorkFolder, digest, run_items
from vdm.data.shards import file_checksum

UNREADABLE = "can't be used"
"""Start of the reason why an unreadable file is dropped."""


def probe(videos: Sequence[VideoFile], drop_duplicates: bool, folder: WorkFolder) -> dict[str, FileResult[VideoRow]]:
    """Return the results by name of the file; of files with the same bytes, all but the first are dropped."""
    results = run_items(
        "probe",
        {video.name: video for video in videos},
        {video.name: digest(video.fingerprint, *([] if video.hdr == "map" else [video.hdr])) for video in videos},
        probe_file,
        VideoRow,
        folder,
    )
    return _without_duplicates(results) if drop_duplicates else results


def probe_file(video: VideoFile) -> FileResult[VideoRow]:
    """Read the header and first frame of a file, and compute its checksum.

    Raises:
        UnavailableError: If the storage or the machine fails; a file that can't be used is a row that is dropped.
    """
    row = VideoRow(video.name, video.fingerprint, video.path.stat().st_size if video.path.exists() else 0)
    try:
        with video.reader() as reader:
            frame = next(iter(reader.frames()), None)
            if frame is None:
                raise SourceError("no frame can be decoded")
            height, width = shown_size(frame.frame, reader.pixel_aspect())
            codec, seconds, fps = reader.stream.codec_context.name, reader.declared_seconds(), reader.fps
            checksum = file_checksum(video.path)
    except UnavailableError:
        raise
    except LeftOutError as error:
        return FileResult((replace(row, dropped=f"HDR: {error}"),))
    except SourceError as error:
        return FileResult((replace(row, dropped=f"{UNREADABLE}: {error}"),), str(error))
    return FileResult(
        (replace(row, checksum=checksum, codec=codec, seconds=seconds, fps=fps, height=height, width=width),)
    )


def _without_duplicates(results: dict[str, FileResult[VideoRow]]) -> dict[str, FileResult[VideoRow]]:
    first: dict[str, str] = {}
    found: dict[str, FileResult[VideoRow]] = {}
    for source, result in results.items():
        rows = list(result.rows)
        for place, row in enumerate(rows):
            if kept([row]) and (other := first.setdefault(row.checksum, source)) != source:
                rows[place] = replace(row, dropped=f"exact duplicate of {other}")
        found[source] = FileResult(tuple(rows), result.fault)
    return found
