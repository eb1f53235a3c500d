"""How far a statistic would vary with other clips of the same kind: by the bootstrap, or by theory for shares."""

import math
import statistics

import torch

from vdm import randomness
from vdm.evaluation.base import Features, ReferenceFeatures, Statistic

NORMAL_QUANTILE = 1.96
"""97.5% of a normal distribution lie below this many standard deviations."""


def standard_error(
    statistic: Statistic,
    clips: Features,
    reference: ReferenceFeatures | None,
    num_resamples: int = 50,
    seed: int = 0,
) -> float:
    """Return the standard deviation of a statistic over resamples of the clips (Efron & Tibshirani 1993, alg. 6.1).

    A resample draws as many clips as there are, with repetition, from either side independently; a clip keeps all its
    rows, which depend on each other. 50 resamples tell the standard error to about 10%.

    Distances of resamples are larger than the distance itself, since repeated clips make each side look less varied
    than it is; that shifts all resamples alike and leaves their spread. So intervals are taken from the spread, and not
    from percentiles, which may lie above the value altogether. For sides that are drawn alike, the
    standard error of a distance is too large, about twofold.

    Raises:
        ValueError: If the statistic can't be computed, or from fewer than two clips or resamples.
    """
    if min(len(side) for side in (clips, reference) if side is not None) < 2:
        raise ValueError("a standard error needs at least 2 clips on each side")
    if num_resamples < 2:
        raise ValueError(f"a standard error needs at least 2 resamples, not {num_resamples}")
    values = [
        statistic.value(
            _resample(clips, seed, "generated", index),
            None if reference is None else _resample(reference, seed, "reference", index),
        )
        for index in range(num_resamples)
    ]
    return statistics.stdev(values)


def interval(value: float, error: float) -> tuple[float, float]:
    """Return the bounds of the normal 95% confidence interval about a value with a standard error."""
    return value - NORMAL_QUANTILE * error, value + NORMAL_QUANTILE * error


def interval_of_share(share: float, num_clips: int) -> tuple[float, float]:
    """Return the bounds of Wilson's 95% interval of a share among independent clips (Wilson 1927).

    They lie between 0 and 1. A share of 0 or 1 has an interval too, although its resamples are all alike.
    """
    squared = NORMAL_QUANTILE**2
    centre = (share * num_clips + squared / 2) / (num_clips + squared)
    reach = NORMAL_QUANTILE * math.sqrt(share * (1 - share) * num_clips + squared / 4) / (num_clips + squared)
    return max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))  # but for rounding


def _resample(clips: Features, seed: int, side: str, index: int) -> Features:
    generator = randomness.generator(seed, f"bootstrap of {side} clips", index)
    return clips[torch.randint(len(clips), (len(clips),), generator=generator)]
