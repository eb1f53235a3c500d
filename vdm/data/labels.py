"""Caption, class and frame rate of a clip, as a batch has them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from vdm import randomness
from vdm.data.captions import captions_of, parse_metadata
from vdm.data.clips import ClipSampling
from vdm.data.motion import stored_motion
from vdm.data.reading import RawSample
from vdm.files import MALFORMED


class ClipLabel(NamedTuple):
    """Caption, class, frame rate and motion of a clip or an image."""

    caption: str = ""
    label: int = -1
    """Number of its class, -1 without one."""
    class_name: str = ""
    fps: float = 1.0
    """Frames per second as the clip is seen."""
    motion: float | None = None
    """Of the whole stored clip, if it was measured when the set was made."""


def words_of(label: ClipLabel) -> str:
    """Return the caption of a clip and the name of its class."""
    return f"{label.caption}\n{label.class_name}"


def parse_label(
    raw: RawSample, sampling: ClipSampling, class_names: Sequence[str], seed: int, position: int | str
) -> ClipLabel:
    """Read the label of a sample from its ``.json``, its ``.txt`` and the index.

    Raises:
        BadSampleError: If its metadata is malformed.
    """
    try:
        metadata = parse_metadata(raw.members.get("json", b"{}"))
        caption = _draw_caption(captions_of(metadata, raw.members.get("txt", b"")), seed, position)
        label = _class_of(metadata.get("label"), len(class_names))
        fps = float(raw.stored.fps or metadata.get("fps") or 1.0)
        if not 0 < fps < math.inf:
            raise ValueError(f"fps={fps}")
        motion, seen_fps = stored_motion(metadata, fps), fps / (sampling.stride(raw.stored) or 1)
        return ClipLabel(caption, label, class_names[label] if label >= 0 else "", seen_fps, motion)
    except MALFORMED as error:
        raise raw.bad(f"its metadata is malformed ({error!r})") from error


def _draw_caption(captions: Sequence[str], seed: int, position: int | str) -> str:
    """Choose a caption, as a function of seed and position; empty if there is none."""
    if len(captions) < 2:
        return captions[0] if captions else ""
    number = torch.randint(len(captions), (1,), generator=randomness.generator(seed, "caption", position))
    return captions[int(number)]


def _class_of(label: Any, num_classes: int) -> int:
    """Return the class in a sample's ``.json``; -1 if it or the set has no classes."""
    if label is None or num_classes == 0:
        return -1
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < num_classes:
        raise ValueError(f"label {label!r} is none of the {num_classes} classes")
    return label
