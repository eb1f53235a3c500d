"""Stage filter, first half: the scores and perceptual hashes of the clips."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from data_pipelines.clips import VideoFile
from data_pipelines.decoding import whole_picture
from data_pipelines.manifest import ClipRow
from data_pipelines.scores.base import SHORT_SIDE, Score, SeenClip
from data_pipelines.sources import SourceError, UnavailableError
from data_pipelines.stages.work_items import ClipTask, FileResult, WorkFolder, run_clip_items
from vdm.config import build
from vdm.extras import needs_extra


def measure(
    rows: Sequence[ClipRow], videos: Mapping[str, VideoFile], scores: Mapping[str, Any], folder: WorkFolder
) -> tuple[list[ClipRow], dict[str, str]]:
    """Return the rows with scores and perceptual hashes, and faults by file; undecodable clips are dropped."""
    node = json.dumps(scores, sort_keys=True)
    found, faults = run_clip_items("filter", rows, videos, node, measure_clips, folder)
    measured: list[ClipRow] = []
    for row in rows:
        if (one := found.get(row.key)) is not None:
            measured.append(replace(row, scores=one.scores, perceptual_hash=one.perceptual_hash))
        else:
            measured.append(replace(row, dropped=NOT_DECODED_AGAIN))
    return measured, faults


NOT_DECODED_AGAIN = "can't be decoded again"
"""Why a clip is dropped that the stage cut found, and a later stage could not decode."""


def measure_clips(task: ClipTask) -> FileResult[ClipRow]:
    """Decode the clips of a file and measure each."""
    scores, rows = load_scores(task.node), {row.key: row for row in task.rows}
    measured: list[ClipRow] = []
    try:
        for clip in task.video.clips_seen(lambda frame, aspect: whole_picture(frame, aspect, SHORT_SIDE)):
            seen = SeenClip(clip.video)
            values = {name: float(score(seen)) for name, score in scores.items()}
            measured.append(replace(rows[clip.key], scores=values, perceptual_hash=perceptual_hash(seen)))
    except UnavailableError:
        raise
    except SourceError as error:
        return FileResult(tuple(measured), str(error))
    return FileResult(tuple(measured))


@lru_cache(maxsize=1)
def load_scores(node: str) -> dict[str, Score]:
    """Build the scores, once in each process."""
    return build(json.loads(node), "filter.scores")


def check_hashes() -> None:
    """Check that the package for perceptual hashes is installed.

    Raises:
        ValueError: In one line, if it is not.
    """
    with needs_extra("curation", "filter.near_duplicate_bits: perceptual hashes"):
        import imagehash  # noqa: F401


def perceptual_hash(clip: SeenClip) -> bytes:
    """Return pHash (Zauner 2010) of the first, middle and last frame, 64 bits each."""
    import imagehash
    from PIL import Image

    places = (0, len(clip.gray) // 2, len(clip.gray) - 1)
    bits = [imagehash.phash(Image.fromarray(clip.gray[place])).hash.ravel() for place in places]
    return np.packbits(np.concatenate(bits)).tobytes()
