"""What a metric is made of: clips, an extractor that describes each of them, and a statistic of the descriptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Features = Float[Tensor, "n k d"]
"""Descriptions of n clips: k rows of d numbers each. Descriptions of whole clips have one row, those of single frames
one row a frame; a score is one row of one number. fp32, on the CPU."""
ReferenceFeatures = Float[Tensor, "m k d"]
"""Descriptions of m reference clips."""


@dataclass(frozen=True)
class EvaluatedClip:
    """A clip that a metric looks at."""

    video: UInt8[Tensor, "c t h w"]
    """RGB frames, in the number and at the rate that the metric asks for, in the size of the source."""
    key: str
    """Name of the clip in its source: file, key of a sample, or number of a generated video."""
    caption: str = ""
    label: int | None = None
    fps: float | None = None
    """Frames per second; None if the source does not say."""


class Extractor(Protocol):
    """Describes clips by numbers: a network's features or logits, or a score of each clip."""

    @property
    def checksum(self) -> str | None:
        """SHA-256 of the file or folder of weights, in hexadecimal digits; None without weights."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of the files beside the weights that its descriptions depend on, by name."""
        ...

    @property
    def batch_size(self) -> int:
        """Clips that it describes at once."""
        ...

    def to(self, device: torch.device) -> "Extractor":
        """Move the network to a device."""
        ...

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Describe clips. A clip's description does not depend on the other clips.

        Raises:
            ValueError: If it can't describe clips of this kind, in one line.
        """
        ...


class PairExtractor(Protocol):
    """Scores clips against the true clips that they should equal: predictions, interpolations, reconstructions."""

    @property
    def checksum(self) -> str | None:
        """As for ``Extractor``."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """As for ``Extractor``."""
        ...

    @property
    def batch_size(self) -> int:
        """Clips that it compares at once."""
        ...

    def to(self, device: torch.device) -> "PairExtractor":
        """Move the network to a device."""
        ...

    def compare(self, clips: Sequence[EvaluatedClip], truth: Sequence[EvaluatedClip]) -> Features:
        """Score each clip against its true clip, which must be of the same size.

        Raises:
            ValueError: If it can't compare clips of this kind, in one line.
        """
        ...


class Statistic(Protocol):
    """A number from descriptions of generated clips and, for distances, of reference clips."""

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with reference clips."""
        ...

    @property
    def is_share(self) -> bool:
        """Whether it is the share of clips that have a property, so that its interval is that of a share."""
        ...

    def min_clips(self, num_features: int) -> int:
        """Return how many clips a reliable value needs on each side.

        Args:
            num_features: d of the features.
        """
        ...

    def value(self, clips: Features, reference: ReferenceFeatures | None) -> float:
        """Return the statistic.

        Args:
            clips: Descriptions of generated clips.
            reference: Descriptions of reference clips; None if it needs none.

        Raises:
            ValueError: If there are too few clips for any value.
        """
        ...
