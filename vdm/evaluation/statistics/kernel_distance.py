"""Squared maximum mean discrepancy between two sets of features, for a polynomial kernel."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float, Int64
from torch import Tensor

from vdm import randomness
from vdm.evaluation.base import Features, ReferenceFeatures
from vdm.evaluation.statistics.checks import both_sides
from vdm.ranges import Count, NotNegative, Positive, Seed, Size

ROWS_AT_ONCE = 1024
"""Rows of a kernel matrix that are held at a time."""

Rows = Float[Tensor, "r d"]
OtherRows = Float[Tensor, "o d"]
Members = Float[Tensor, "s r"]
"""1 where a subset has a row, 0 elsewhere."""
OtherMembers = Float[Tensor, "s o"]


@dataclass(frozen=True)
class KernelDistance:
    """MMD² (Gretton et al. 2012) with kernel ``k(x, y) = (gamma <x, y> + coef0)^degree``.

    The defaults are those of the kernel distances of images (KID: Bińkowski et al. 2018, section 4) and, with features
    of videos, KVD (Unterthiner et al. 2019): the unbiased estimate, whose mean over sets that are drawn alike is 0, so
    that values below 0 occur; averaged over random subsets. JEDi (Luo et al. 2024) is the biased estimate from all
    clips, with ``degree=2, coef0=0, subset_size=None, unbiased=False, scale=100``.

    Args:
        degree: Degree of the kernel.
        gamma: Factor of the scalar product; None for 1/d.
        coef0: Constant of the kernel.
        subset_size: Rows of each side that an estimate is made from, without repetition; all rows of a side that has
            fewer, and as many of the other. None for one estimate from all rows of both.
        num_subsets: Number of estimates that are averaged, each from its own subsets. Where both sides have no more
            rows than a subset, all would be the same, and there is one.
        seed: Seed of the subsets.
        unbiased: Leaves out the kernel of each row with itself (Gretton et al. 2012, eq. 3); otherwise the square
            of eq. 5, which is never below 0, and above it for sets that are drawn alike, by about a constant over
            their size.
        scale: Factor of the result.
    """

    degree: Annotated[int, Interval(ge=1, le=16)] = 3
    gamma: Positive | None = None
    coef0: NotNegative = 1.0
    subset_size: Size | None = 1000
    num_subsets: Count = 100
    seed: Seed = 0
    unbiased: bool = True
    scale: Positive = 1.0

    needs_reference = True
    is_share = False

    def __post_init__(self) -> None:
        if self.subset_size == 1:
            raise ValueError("subset_size must be at least 2, but is 1")

    def min_clips(self, num_features: int) -> int:
        """Return how many clips fill a subset: fewer give a value that varies more than those of that protocol."""
        return self.subset_size or 2

    def value(self, clips: Features, reference: ReferenceFeatures | None) -> float:
        """Return the distance.

        Raises:
            ValueError: If a side has fewer than two clips.
        """
        sides = both_sides("a kernel distance", clips, reference, at_least=2)
        one, other = (side.flatten(0, 1) for side in sides)
        if self.subset_size is None:
            return self.scale * float(self._estimates(one, other))
        size = min(self.subset_size, len(one), len(other))
        num_subsets = 1 if size == len(one) == len(other) else self.num_subsets
        of_one, of_other = (
            torch.stack([self._subset(side, index, len(rows), size) for index in range(num_subsets)])
            for side, rows in (("generated", one), ("reference", other))
        )
        if len(one) * len(other) <= num_subsets * size**2:  # most pairs are in several subsets
            estimates = self._estimates(one, other, _members(of_one, len(one)), _members(of_other, len(other)))
        else:
            pairs = zip(of_one, of_other, strict=True)
            estimates = torch.cat([self._estimates(one[rows], other[others]) for rows, others in pairs])
        return self.scale * float(estimates.mean())

    def _subset(self, side: str, index: int, num_rows: int, size: int) -> Int64[Tensor, " size"]:
        generator = randomness.generator(self.seed, f"kernel distance of {side} clips", index)
        return torch.randperm(num_rows, generator=generator)[:size]

    def _estimates(
        self, one: Rows, other: OtherRows, in_one: Members | None = None, in_other: OtherMembers | None = None
    ) -> Float[Tensor, " s"]:
        """Return the estimate from each pair of subsets; without subsets, that from all rows."""
        one, other = one.double(), other.double()
        in_one = one.new_ones(1, len(one)) if in_one is None else in_one
        in_other = other.new_ones(1, len(other)) if in_other is None else in_other
        between = self._kernel_sums(one, other, in_one, in_other) / (in_one.sum(1) * in_other.sum(1))
        return self._within(one, in_one) + self._within(other, in_other) - 2 * between

    def _within(self, rows: Rows, members: Members) -> Float[Tensor, " s"]:
        """Return the mean kernel between rows of one side, for each subset of them."""
        sizes, sums = members.sum(1), self._kernel_sums(rows, rows, members, members)
        if not self.unbiased:
            return sums / sizes**2
        of_rows_with_themselves = members @ self._kernels(rows.square().sum(1), rows.shape[1])
        return (sums - of_rows_with_themselves) / (sizes * (sizes - 1))

    def _kernel_sums(self, one: Rows, other: OtherRows, in_one: Members, in_other: OtherMembers) -> Float[Tensor, " s"]:
        """Return the sum of kernels over all pairs of rows, for each pair of subsets."""
        total = one.new_zeros(len(in_one))
        for rows, members in zip(one.split(ROWS_AT_ONCE), in_one.split(ROWS_AT_ONCE, dim=1), strict=True):
            total += (members @ self._kernels(rows @ other.T, one.shape[1]) * in_other).sum(1)
        return total

    def _kernels(self, products: Float[Tensor, "*shape"], d: int) -> Float[Tensor, "*shape"]:
        """Return kernels of pairs of rows, given their scalar products."""
        gamma = 1 / d if self.gamma is None else self.gamma
        return (gamma * products + self.coef0) ** self.degree


def _members(subsets: Int64[Tensor, "s size"], num_rows: int) -> Members:
    return torch.zeros(len(subsets), num_rows, dtype=torch.float64).scatter_(1, subsets, 1.0)
