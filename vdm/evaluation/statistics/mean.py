"""Means of scores over clips."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.base import Features
from vdm.evaluation.statistics.checks import both_sides, one_side


@dataclass(frozen=True)
class Mean:
    """Mean score over all rows of all clips."""

    needs_reference = False
    is_share = False

    def min_clips(self, num_features: int) -> int:
        """Return 1: the mean of any number of clips is unbiased."""
        return 1

    def value(self, clips: Float[Tensor, "n k 1"], reference: Features | None = None) -> float:
        """Return the mean, in the score's unit. ``reference`` means nothing here.

        Raises:
            ValueError: If there is no clip.
        """
        return _mean(one_side("a mean", clips, at_least=1))


@dataclass(frozen=True)
class Share(Mean):
    """Share of clips with a property: the mean of scores that are 1 or 0."""

    is_share = True

    def value(self, clips: Float[Tensor, "n k 1"], reference: Features | None = None) -> float:
        """Return the share, 0 to 1. ``reference`` means nothing here.

        Raises:
            ValueError: If there is no clip, or a score is neither 0 nor 1.
        """
        share = super().value(clips)
        if not ((clips == 0) | (clips == 1)).all():
            raise ValueError("a share needs scores of 0 or 1; take the statistic Mean for others")
        return share


@dataclass(frozen=True)
class MeanDifference:
    """Mean score of generated clips minus that of reference clips; 0 is best, the sign says which have more."""

    needs_reference = True
    is_share = False

    def min_clips(self, num_features: int) -> int:
        """Return 1: the difference between means of any numbers of clips is unbiased."""
        return 1

    def value(self, clips: Float[Tensor, "n k 1"], reference: Float[Tensor, "m k 1"] | None) -> float:
        """Return the difference, in the score's unit.

        Raises:
            ValueError: If a side has no clip.
        """
        generated, true = both_sides("a difference between means", clips, reference, at_least=1)
        return _mean(generated) - _mean(true)


def _mean(scores: Float[Tensor, "n k 1"]) -> float:
    return float(scores.mean(dtype=torch.float64))
