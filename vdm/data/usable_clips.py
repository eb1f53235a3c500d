"""Messages about clips that training can't use, and about missing captions."""

import logging
from collections.abc import Sequence

from vdm.data.clips import ClipSampling, is_bounded
from vdm.data.sets import TRAIN, VALIDATION, ShardSet, Split

logger = logging.getLogger(__name__)


def check_splits(
    sets: Sequence[ShardSet], training: Split, validation: Split, sampling: ClipSampling, needs_validation: bool
) -> None:
    """Refuse sets without usable clips.

    Args:
        sets: The sets.
        training: Their training split.
        validation: Their validation split.
        sampling: Says which clips are usable.
        needs_validation: Whether there must be clips for validation.

    Raises:
        ValueError: In one line, if a set has no clips for training, or there are none for validation.
    """

    def all_unusable(num_samples: int) -> str:
        return f"; all of its {num_samples} are {_reason(training, validation, sampling)}" if num_samples else ""

    for number, one in enumerate(sets):
        if not any(number in bucket.stored for bucket in training.buckets):
            reason = all_unusable(int(one.shards(TRAIN).num_samples.sum()))
            raise ValueError(f"{one.path}: the set has no samples in the split '{TRAIN}'{reason}")
    if needs_validation and validation.num_samples == 0:
        paths, reason = ", ".join(one.path for one in sets), all_unusable(validation.num_unusable)
        raise ValueError(
            f"{paths}: the set has no samples in the split '{VALIDATION}'{reason}; "
            "data.max_validation_clips=0 trains without"
        )


def log_unusable(training: Split, validation: Split, sampling: ClipSampling) -> None:
    """Warn of training clips that are left out."""
    if training.num_unusable:
        logger.warning(
            "%d of %d clips are left out: they are %s",
            training.num_unusable,
            training.num_unusable + training.num_samples,
            _reason(training, validation, sampling),
        )


def log_captions(sets: Sequence[ShardSet]) -> None:
    """Log how many training clips have no caption: a warning if none has any.

    Sets whose index does not say, as those of earlier versions, are not counted.
    """
    counted = [one for one in sets if one.index.num_uncaptioned is not None]
    without = sum((one.index.num_uncaptioned or {}).get(TRAIN, 0) for one in counted)
    total = sum(int(one.shards(TRAIN).num_samples.sum()) for one in counted)
    if 0 < without == total and len(counted) == len(sets):
        paths = ", ".join(one.path for one in sets)
        logger.warning("%s: none of the %d training clips has a caption, and the model takes text", paths, total)
    elif without:
        logger.info("%d of %d training clips have no caption", without, total)


def _reason(training: Split, validation: Split, sampling: ClipSampling) -> str:
    """Return why clips can be unusable."""
    fps = sampling.fps
    rate = "" if fps is None else f"of fewer frames a second than clips.fps={fps:g}, or of an unknown rate"
    short = "too short for clips.shapes" if sampling.shapes else ""
    kinds = (kind for shards in (*training.shards, *validation.shards) for kind in shards.kinds)
    is_any_large = not sampling.shapes and not all(is_bounded(kind.shape) for kind in kinds)
    large = "too large to be seen whole (clips.shapes takes parts of them)" if is_any_large else ""
    return " or ".join(filter(None, (short, large, rate)))
