"""Fréchet distance between two sets of features."""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.evaluation.base import Features, ReferenceFeatures
from vdm.evaluation.statistics.checks import both_sides

ROWS_AT_ONCE = 4096
"""Rows that are held in float64 at a time; features may be larger than memory, in a file that is mapped into it."""


@dataclass(frozen=True)
class Moments:
    """First and second moments of rows of features, in float64. Those of parts add up to those of the whole.

    Deviations from the mean are summed, and not plain squares, from which a large mean would cancel most digits
    (Chan, Golub & LeVeque 1983).
    """

    count: int
    """Number of rows, at least 1."""
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]
    """Sum of (row - mean) (row - mean)^T over rows."""

    @classmethod
    def of(cls, features: Features) -> "Moments":
        """Return the moments of the rows of all clips together."""
        return reduce(add, map(cls._of_part, features.flatten(0, 1).split(ROWS_AT_ONCE)))

    @classmethod
    def _of_part(cls, rows: Float[Tensor, "r d"]) -> "Moments":
        rows = rows.cpu().double()
        mean = rows.mean(0)
        deviations = rows - mean
        return cls(len(rows), mean, deviations.T @ deviations)

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + other.count / count * shift,
            self.scatter + other.scatter + self.count * other.count / count * torch.outer(shift, shift),
        )

    def covariance(self, ddof: int) -> Float[Tensor, "d d"]:
        """Return the covariance of rows, with divisor ``count - ddof``."""
        return self.scatter / (self.count - ddof)


@dataclass(frozen=True)
class FrechetDistance:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    ``m`` and ``C`` are the mean and the covariance of each side's features, those of all rows of all clips. The
    distance is 0 for sides of equal mean and covariance. It is biased upwards for few clips (Chong & Forsyth 2020):
    compare only distances between sides of the same numbers of clips.

    Args:
        ddof: The covariance of n rows has the divisor n - ddof. Published figures differ: StyleGAN-V and cd-fvd have
            0, pytorch-fid and common_metrics_on_video_quality 1.
    """

    ddof: Literal[0, 1] = 0

    needs_reference = True
    is_share = False

    def min_clips(self, num_features: int) -> int:
        """Return d + 1: the covariance of fewer clips is singular, whatever the videos are."""
        return num_features + 1

    def value(self, clips: Features, reference: ReferenceFeatures | None) -> float:
        """Return the distance, in squared units of the features.

        Raises:
            ValueError: If a side has fewer than two clips.
        """
        one, other = map(Moments.of, both_sides("a Fréchet distance", clips, reference, at_least=2))
        return self.between(one, other)

    def between(self, one: Moments, other: Moments) -> float:
        """Return the distance between sides of which only the moments are known."""
        covariances = [one.covariance(self.ddof), other.covariance(self.ddof)]
        # With C1 = A^T A and C2 = B^T B, the eigenvalues of C1 C2 are the squared singular values of A B^T. Their sum
        # needs no root of a matrix that is not symmetric, nor of its rounding errors.
        factor_one, factor_other = map(_factor, covariances)
        cross = torch.linalg.svdvals(factor_one @ factor_other.T).sum()
        traces = sum(covariance.trace() for covariance in covariances)
        return float((one.mean - other.mean).square().sum() + traces - 2 * cross)


def _factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "r d"]:
    """Return A with C = A^T A, of as many rows as the rank of C."""
    values, vectors = torch.linalg.eigh(covariance)
    # Of an eigenvalue that is 0, rounding leaves about 1e-16 of the largest, whose root would be far from 0.
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
    above = values > rounding
    return values[above].sqrt()[:, None] * vectors[:, above].T
