"""A metric: which clips it looks at, how it describes them, and the figure that it computes from the descriptions."""

from dataclasses import dataclass
from typing import Literal

from vdm.evaluation.base import Extractor, PairExtractor, Statistic
from vdm.evaluation.clip_rule import ClipRule
from vdm.ranges import CountOrZero, Positive, Size

RESERVED_NAME = "fvd"
"""Only networks of the Fréchet video distance give a figure with this in its name."""


@dataclass(frozen=True)
class Metric:
    """A metric with its whole protocol; every argument is part of the protocol.

    Args:
        extractor: Describes clips, or compares each with a true clip.
        statistic: Computes the figure from the descriptions.
        num_frames: Frames of a clip.
        fps: Frames per second of a clip; None takes consecutive frames at any rate.
        start: Whether clips begin with the first frame of a video or are its middle.
        num_videos: Videos that are measured; None for all that there are.
        num_reference: Reference videos; None for all.
        strict: Whether to refuse what is not reliable: fewer clips than the statistic needs, and unreadable videos.
        num_resamples: Bootstrap samples for the interval; 0 for no interval.
        better: Whether lower or higher figures are better, for ``save.keep.best``; None if neither is.
        reverse: Whether videos are seen last frame first, and reference videos as they are: a distance that stays as it
            is sees nothing of the direction of time.

    Raises:
        ValueError: If the statistic does not fit the extractor.
    """

    extractor: Extractor | PairExtractor
    statistic: Statistic
    num_frames: Size = 16
    fps: Positive | None = None
    start: Literal["first", "center"] = "first"
    num_videos: Size | None = None
    num_reference: Size | None = None
    strict: bool = False
    num_resamples: CountOrZero = 50
    reverse: bool = False
    better: Literal["lower", "higher"] | None = "lower"

    def __post_init__(self) -> None:
        if self.compares_pairs and self.statistic.needs_reference:
            raise ValueError("statistic: is a distance between two sets, but the extractor compares pairs; choose Mean")

    @property
    def rule(self) -> ClipRule:
        """Which frames of a video are looked at."""
        return ClipRule(self.num_frames, self.fps, self.start)

    @property
    def compares_pairs(self) -> bool:
        """Whether each clip is compared with a true clip of its own."""
        return hasattr(self.extractor, "compare")

    @property
    def needs_reference(self) -> bool:
        """Whether there must be reference videos."""
        return self.compares_pairs or self.statistic.needs_reference

    def check_name(self, name: str) -> None:
        """Refuse a name that belongs to another metric.

        Raises:
            ValueError: If the name has ``fvd`` in it, and the network is of another kind or the metric is not strict.
        """
        if RESERVED_NAME not in name.lower():
            return
        if not getattr(self.extractor, "is_of_fvd", False):
            raise ValueError(f"{name}: a figure of another extractor must not be called FVD; name it frechet_...")
        if not self.strict:
            raise ValueError(f"{name}: is always strict; strict=false takes a metric of another name")
