"""Stage caption: the caption that people wrote for a clip's file, else one by a model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from data_pipelines.annotations import Annotation
from data_pipelines.captioners.base import Captioner
from data_pipelines.clips import VideoFile
from data_pipelines.decoding import whole_picture
from data_pipelines.manifest import ClipRow
from data_pipelines.sources import SourceError, UnavailableError
from data_pipelines.stages.measure import NOT_DECODED_AGAIN
from data_pipelines.stages.work_items import ClipTask, FileResult, WorkFolder, run_clip_items
from vdm.config import build


def annotate(rows: Sequence[ClipRow], annotations: Mapping[str, Annotation]) -> list[ClipRow]:
    """Return the rows with the caption and label of their file."""
    found: list[ClipRow] = []
    for row in rows:
        annotation = annotations.get(row.source, Annotation())
        origin = "annotation" if annotation.caption else ""
        found.append(replace(row, caption=annotation.caption, label=annotation.label, caption_from=origin))
    return found


def caption(
    rows: Sequence[ClipRow], videos: Mapping[str, VideoFile], captioner: Mapping[str, Any], folder: WorkFolder
) -> tuple[list[ClipRow], dict[str, str]]:
    """Return the rows with captions by the captioner, and faults by file; undecodable clips are dropped."""
    node = json.dumps(captioner, sort_keys=True)
    found, faults = run_clip_items("caption", rows, videos, node, caption_clips, folder)
    captioned: list[ClipRow] = []
    for row in rows:
        if (one := found.get(row.key)) is not None:
            captioned.append(replace(row, caption=one.caption, caption_from=one.caption_from))
        else:
            captioned.append(replace(row, dropped=NOT_DECODED_AGAIN))
    return captioned, faults


def caption_clips(task: ClipTask) -> FileResult[ClipRow]:
    """Decode the clips of a file and caption each."""
    captioner, rows = load_captioner(task.node), {row.key: row for row in task.rows}
    captioned: list[ClipRow] = []
    try:
        for clip in task.video.clips_seen(lambda frame, aspect: whole_picture(frame, aspect, captioner.short_side)):
            text = " ".join(captioner(clip.video).split())
            captioned.append(replace(rows[clip.key], caption=text, caption_from=captioner.name))
    except UnavailableError:
        raise
    except SourceError as error:
        return FileResult(tuple(captioned), str(error))
    return FileResult(tuple(captioned))


@lru_cache(maxsize=1)
def load_captioner(node: str) -> Captioner:
    """Build the captioner, once in each process."""
    return build(json.loads(node), "captioner")
