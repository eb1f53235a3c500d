"""What every statistic asks of the features that it gets."""

from vdm.evaluation.base import Features, ReferenceFeatures


def both_sides(
    statistic: str, clips: Features, reference: ReferenceFeatures | None, at_least: int
) -> tuple[Features, ReferenceFeatures]:
    """Return the features of generated and reference clips, if a statistic can be computed from them.

    Args:
        statistic: Its name in messages, with an article.
        clips: Features of generated clips.
        reference: Features of reference clips.
        at_least: Number of clips without which it is not defined, on each side.

    Raises:
        ValueError: If there are fewer, or any number is not finite.
    """
    if reference is None:
        raise ValueError(f"{statistic} needs reference clips")
    if min(len(clips), len(reference)) < at_least:
        raise ValueError(
            f"{statistic} needs at least {_clips(at_least)} on each side, not {len(clips)} and {len(reference)}"
        )
    _require_finite(statistic, "generated", clips)
    _require_finite(statistic, "reference", reference)
    return clips, reference


def one_side(statistic: str, clips: Features, at_least: int) -> Features:
    """Return the features of clips; the same as ``both_sides`` for statistics without reference."""
    if len(clips) < at_least:
        raise ValueError(f"{statistic} needs at least {_clips(at_least)}, not {len(clips)}")
    _require_finite(statistic, "generated", clips)
    return clips


def _clips(number: int) -> str:
    return "1 clip" if number == 1 else f"{number} clips"


def _require_finite(statistic: str, side: str, features: Features) -> None:
    # Extremes need no memory, which a mask of large features would; they are NaN if any number is.
    if not all(extreme.isfinite() for extreme in features.aminmax()):
        raise ValueError(f"{statistic} can't be computed: features of {side} clips hold NaN or infinity")
