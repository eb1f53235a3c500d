"""Fréchet distance between two sets of features."""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(one: Float[Tensor, "n d"], other: Float[Tensor, "m d"]) -> float:
    """Return ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    ``m`` and ``C`` are the mean and the unbiased covariance of each set. The distance is 0 for sets of equal mean and
    covariance. It is biased upwards for small sets: compare only distances between sets of the same sizes.

    Raises:
        ValueError: If a set has fewer than two rows.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"a Fréchet distance needs at least 2 clips on each side, not {len(one)} and {len(other)}")
    one, other = one.cpu().double(), other.cpu().double()
    (mean_one, covariance_one), (mean_other, covariance_other) = (
        (features.mean(0), torch.cov(features.T).view(features.shape[1], -1)) for features in (one, other)
    )
    # tr((C1 C2)^(1/2)) is the sum of the singular values of C1^(1/2) C2^(1/2), which avoids roots of rounding errors.
    cross = torch.linalg.matrix_norm(_root(covariance_one) @ _root(covariance_other), "nuc")
    traces = covariance_one.trace() + covariance_other.trace()
    return float((mean_one - mean_other).square().sum() + traces - 2 * cross)


def _root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
