"""Several sets of several shapes in one order of samples, as elastic as that of one set.

A *bucket* holds the samples of all sets that are brought to one shape; every optimizer step takes one bucket.
Letters: P position, G samples in a step, k step, w weight of a set, N samples of a set, n those of them in a bucket.

Step k goes to a bucket, which had k' steps before; slot j is then number ``k' G + j`` of that bucket. That number goes
to a set, which had i numbers of this bucket before; the sample is number i in the shuffled order of the set's samples
in this bucket. Both assignments follow a ``QuotaSchedule``: buckets in the proportion of ``sum over sets of w n / N``,
the sets of a bucket in that of ``w n / N``. So each set has its weight's share of all samples, and all samples of a
set are seen equally often.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from vdm.data.order import IndexOrder, Place, ShuffledOrder
from vdm.data.quotas import QuotaSchedule, quotas
from vdm.data.shard_table import ShardTable
from vdm.data.shards import Kind, Shape


@dataclass(frozen=True, eq=False)
class Bucket:
    """The samples that are brought to one shape."""

    shape: Shape
    """Frames, rows and columns."""
    stored: Mapping[int, frozenset[Kind]]
    """By number of the set: the kinds of its samples in this bucket, as its index counts them."""
    samples_per_shard: Mapping[int, np.ndarray]
    """By number of the set: how many of these samples each shard has."""

    @cached_property
    def num_samples(self) -> int:
        """Number of samples of all sets."""
        return sum(int(counts.sum()) for counts in self.samples_per_shard.values())


def fill_buckets(
    sets: Sequence[ShardTable], rates: Sequence[float | None], shape_of: Callable[[Kind], Shape | None]
) -> tuple[tuple[Bucket, ...], int]:
    """Sort the samples of sets into buckets, in the order of their shapes.

    Args:
        sets: Shards of each set.
        rates: Frames per second of each set's clips, where their kinds don't say it.
        shape_of: Shape that samples of a kind are brought to; None if they can't be used.

    Returns:
        The buckets, and the number of samples that can't be used.
    """
    stored: dict[Shape, dict[int, set[Kind]]] = {}
    num_unusable = 0
    for number, (shards, fps) in enumerate(zip(sets, rates, strict=True)):
        for kind, count in shards.kinds.items():
            target = shape_of(kind.of_set(fps))
            if target is None:
                num_unusable += count
            else:
                stored.setdefault(target, {}).setdefault(number, set()).add(kind)
    buckets = [
        Bucket(
            target,
            {number: frozenset(kinds) for number, kinds in by_set.items()},
            {number: sets[number].count(kinds) for number, kinds in by_set.items()},
        )
        for target, by_set in sorted(stored.items())
    ]
    return tuple(buckets), num_unusable


class MixedPlace(NamedTuple):
    """The place of a sample in several sets."""

    bucket: int
    set: int
    place: Place
    """``sample`` counts only the samples of the shard that are in the bucket."""


class Order(Protocol):
    """Order of samples: the place of the sample at each position."""

    def bucket_of(self, position: int) -> tuple[int, int]:
        """Return the bucket of a position, and its number among the positions of that bucket."""
        ...

    def locate(self, position: int) -> MixedPlace:
        """Return the place of the sample at ``position``."""
        ...


class ShuffledBuckets(Order, Protocol):
    """An order that also locates the neighbours of a sample in its bucket."""

    def locate_in_bucket(self, bucket: int, number: int) -> MixedPlace:
        """Return the place of the ``number``-th sample of a bucket."""
        ...

    def reach(self, bucket: int) -> int:
        """How many successive numbers of a bucket lie in about the same shards."""
        ...


class MixedOrder:
    """The endless order of training over all sets and shapes.

    Args:
        seed: Seed of the run.
        buckets: The samples.
        weights: Share of each set, in any unit.
        global_batch_size: G.
        num_streams: As for ``ShuffledOrder``.
        shuffle_window: As for ``ShuffledOrder``.
    """

    def __init__(
        self,
        seed: int,
        buckets: Sequence[Bucket],
        weights: Sequence[Fraction],
        global_batch_size: int,
        num_streams: int,
        shuffle_window: int,
    ) -> None:
        self._global_batch_size = global_batch_size
        totals = dict.fromkeys(range(len(weights)), 0)
        for bucket in buckets:
            for number, counts in bucket.samples_per_shard.items():
                totals[number] += int(counts.sum())
        shares = [
            {n: weights[n] * int(counts.sum()) / totals[n] for n, counts in bucket.samples_per_shard.items()}
            for bucket in buckets
        ]
        self._bucket_schedule = QuotaSchedule(
            seed, "bucket", quotas([sum(of_sets.values(), Fraction()) for of_sets in shares])
        )
        self._set_numbers = [list(of_sets) for of_sets in shares]
        self._set_schedules = [
            QuotaSchedule(seed, f"set in {'x'.join(map(str, bucket.shape))}", quotas(list(of_sets.values())))
            for bucket, of_sets in zip(buckets, shares, strict=True)
        ]
        self._orders = [
            {
                number: ShuffledOrder(seed, counts, num_streams, shuffle_window, _name(number, bucket.shape))
                for number, counts in bucket.samples_per_shard.items()
            }
            for bucket in buckets
        ]

    def bucket_of(self, position: int) -> tuple[int, int]:
        """Return the bucket of a position, and its number among the positions of that bucket."""
        step, slot = divmod(position, self._global_batch_size)
        bucket, earlier = self._bucket_schedule.assign(step)
        return bucket, earlier * self._global_batch_size + slot

    def locate(self, position: int) -> MixedPlace:
        """Return the place of the sample at ``position`` >= 0."""
        return self.locate_in_bucket(*self.bucket_of(position))

    def locate_in_bucket(self, bucket: int, number: int) -> MixedPlace:
        """Return the place of the ``number``-th sample of a bucket."""
        choice, earlier = self._set_schedules[bucket].assign(number)
        set_number = self._set_numbers[bucket][choice]
        return MixedPlace(bucket, set_number, self._orders[bucket][set_number].locate(earlier))

    def reach(self, bucket: int) -> int:
        """How many successive numbers of a bucket lie in about the same shards."""
        return sum(order.reach for order in self._orders[bucket].values())


class ListedOrder:
    """All samples once: bucket by bucket, set by set, as the indices list them."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._groups = [
            (bucket, number, IndexOrder(counts), int(counts.sum()))
            for bucket, of_bucket in enumerate(buckets)
            for number, counts in of_bucket.samples_per_shard.items()
        ]

    def bucket_of(self, position: int) -> tuple[int, int]:
        """Return the bucket of a position, and the position."""
        return self.locate(position).bucket, position

    def locate(self, position: int) -> MixedPlace:
        """Return the place of the ``position``-th sample.

        Raises:
            IndexError: If there are not so many samples.
        """
        for bucket, number, order, count in self._groups:
            if position < count:
                return MixedPlace(bucket, number, order.locate(position))
            position -= count
        raise IndexError("there are not so many samples")


def _name(number: int, shape: Shape) -> str:
    """Return what tells one set's order in one bucket from all others."""
    return f" of set {number} in {'x'.join(map(str, shape))}"
