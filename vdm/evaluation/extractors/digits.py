"""What the classifier of moving digits sees in clips."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.base import EvaluatedClip, Features
from vdm.evaluation.digit_classifier import LearnedDigits
from vdm.evaluation.extractors.batches import NetworkExtractor, Video, in_batches, stacked
from vdm.evaluation.extractors.checksums import weights_checksum
from vdm.evaluation.moving_digits import captioned_directions, seen_directions
from vdm.ranges import Size

_BATCH_SIZE = 64


class DigitFeatures(NetworkExtractor):
    """The digit classifier's features, averaged over frames; distances of them are named Fréchet-digits.

    Args:
        digits: Learns the digits from a data set; given by the command.
        batch_size: Clips in a batch.
    """

    def __init__(self, digits: LearnedDigits, batch_size: Size = _BATCH_SIZE) -> None:
        self.classifier = digits.classifier
        super().__init__(self.classifier, weights_checksum(self.classifier.state_dict()), batch_size)

    def features(self, pixels: Video) -> Float[Tensor, "b 1 64"]:
        """Return the features of clips."""
        return rearrange(self.classifier.describe(pixels), "b d -> b 1 d")


class PromptedDigit:
    """1 for clips that show the digit of their label, 0 for others: the mean is the share of right digits.

    Args:
        digits: Learns the digits from a data set; given by the command.
        batch_size: Clips in a batch.
    """

    def __init__(self, digits: LearnedDigits, batch_size: Size = _BATCH_SIZE) -> None:
        self.classifier = digits.classifier
        self.checksum: str | None = weights_checksum(self.classifier.state_dict())
        self.files: Mapping[str, str] = {}
        self.batch_size = batch_size
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> Self:
        """Move the classifier to a device."""
        self.classifier.to(device)
        self.device = device
        return self

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Return 0 or 1 for each clip.

        Raises:
            ValueError: If a clip has no label.
        """
        for clip in clips:
            if clip.label is None:
                raise ValueError(f"{clip.key}: has no label, which is the digit that it was to show")

        def are_right(batch: Sequence[EvaluatedClip]) -> Float[Tensor, "b 1 1"]:
            labels = torch.tensor([clip.label for clip in batch])
            found = self.classifier.predict(stacked(batch).to(self.device)).cpu()
            return rearrange((found == labels).float(), "b -> b 1 1")

        return in_batches(are_right, clips, self.batch_size)


class PromptedMotion:
    """1 for clips that move as their caption says, 0 for others: the mean is the share of right motions.

    The motion is that of the centre of brightness, as ``vdm.evaluation.moving_digits`` sees it.
    """

    checksum: str | None = None
    files: Mapping[str, str] = MappingProxyType({})
    batch_size = _BATCH_SIZE

    def to(self, device: torch.device) -> Self:
        """Change nothing: motion is computed on the CPU."""
        return self

    def describe(self, clips: Sequence[EvaluatedClip]) -> Features:
        """Return 0 or 1 for each clip."""

        def are_right(batch: Sequence[EvaluatedClip]) -> Float[Tensor, "b 1 1"]:
            wanted = captioned_directions([clip.caption for clip in batch])
            found = seen_directions(stacked(batch))
            return rearrange((found == wanted).all(-1).float(), "b -> b 1 1")

        return in_batches(are_right, clips, self.batch_size)
