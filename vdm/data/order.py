"""The order of training samples: a pure function of the seed, the set and G, never of processes or workers.

Letters: P position, N samples of the set, S streams, G samples in one optimizer step, R ranks, r one of them, m samples
in one micro-batch at most, A micro-batches that a rank accumulates in one step.

This file has the order of one set's samples, and what a step gives to each rank; ``mixing.py`` puts several sets and
shapes of clips into one order.

Position ``P = k G + j`` is slot j of optimizer step k. The order is endless, resuming at step ten million costs as much
as starting, and a job may resume on another number of ranks: only P is saved.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from vdm import randomness
from vdm.data.cache import BoundedCache

PADDING = -1
"""Position of a slot without a sample, which pads a micro-batch."""


class Place(NamedTuple):
    """The place of a sample in its set."""

    epoch: int
    shard: int
    """Number of the shard in the index."""
    sample: int
    """Number of the sample among those of the shard that are in this order."""


@dataclass(frozen=True)
class _Epoch:
    """The shards of one epoch laid end to end, in the epoch's own order."""

    shards: np.ndarray
    ends: np.ndarray
    """Number of samples in the shards up to and including each."""

    def locate(self, row: int) -> tuple[int, int]:
        """Return the shard and the sample in it of the ``row``-th sample of the epoch."""
        rank = bisect_right(self.ends, row)
        start = int(self.ends[rank - 1]) if rank > 0 else 0
        return int(self.shards[rank]), row - start


class IndexOrder:
    """The samples as the index lists them; one epoch only."""

    def __init__(self, samples_per_shard: Sequence[int] | np.ndarray) -> None:
        ends = np.cumsum(np.asarray(samples_per_shard, np.int64))
        self._epoch = _Epoch(np.arange(len(ends)), ends)

    def locate(self, number: int) -> Place:
        """Return the place of the ``number``-th sample."""
        return Place(0, *self._epoch.locate(number))


class ShuffledOrder:
    """An endless order that visits each sample exactly once in every epoch.

    An epoch permutes the shards and concatenates their samples. This sequence of N is cut into S streams of equal
    length (to 1), which are read in rounds: place i of an epoch is number ``i // S`` of one of the streams, and each
    round goes through them in an order of its own. Within its stream each window of successive samples is permuted. So
    a reader works on S short ranges of the set at a time, without random access to the rest, and a batch mixes distant
    parts of the set.

    ``test_a_set_sorted_by_class_is_mixed_like_independent_draws`` measures the mixing.

    Args:
        seed: Seed of the run.
        samples_per_shard: Number of samples in each shard of the index.
        num_streams: S, parts of the set that are read in rounds.
        shuffle_window: Length of the windows, in samples.
        name: Tells this order from others of the same seed.
    """

    def __init__(
        self,
        seed: int,
        samples_per_shard: Sequence[int] | np.ndarray,
        num_streams: int,
        shuffle_window: int,
        name: str = "",
    ) -> None:
        self._seed = seed
        self._name = name
        self._counts = np.asarray(samples_per_shard, np.int64)
        self._num_streams = num_streams
        self._shuffle_window = shuffle_window
        self._num_samples = int(self._counts.sum())
        self._epochs: BoundedCache[int, _Epoch] = BoundedCache(capacity=2)
        self._windows: BoundedCache[tuple[int, int, int], np.ndarray] = BoundedCache(capacity=num_streams)
        self._rounds: BoundedCache[tuple[int, int], np.ndarray] = BoundedCache(capacity=16)

    @property
    def reach(self) -> int:
        """How many successive samples lie in about the same shards."""
        return min(self._num_samples, self._num_streams * self._shuffle_window)

    def locate(self, number: int) -> Place:
        """Return the place of the ``number``-th sample, ``number`` >= 0."""
        epoch, place = divmod(number, self._num_samples)
        number, turn = divmod(place, self._num_streams)
        quotient, remainder = divmod(self._num_samples, self._num_streams)
        num_streams = self._num_streams if number < quotient else remainder  # the first ones have a sample more
        stream = int(self._rounds.get((epoch, number), lambda key: self._permute("round", key, num_streams))[turn])
        start = stream * quotient + min(stream, remainder)
        length = quotient + (stream < remainder)
        row = start + self._shuffle(epoch, stream, number, length)
        return Place(epoch, *self._epochs.get(epoch, self._plan).locate(row))

    def _plan(self, epoch: int) -> _Epoch:
        generator = randomness.generator(self._seed, "shards" + self._name, epoch)
        shards = torch.randperm(len(self._counts), generator=generator).numpy()
        return _Epoch(shards, self._counts[shards].cumsum())

    def _shuffle(self, epoch: int, stream: int, number: int, length: int) -> int:
        """Return the number in the stream that the permutation of its window puts in the place of ``number``."""
        window, place = divmod(number, self._shuffle_window)
        first = window * self._shuffle_window
        size = min(self._shuffle_window, length - first)
        permuted = self._windows.get((epoch, stream, window), lambda key: self._permute("window", key, size))
        return first + int(permuted[place])

    def _permute(self, what: str, key: tuple[int, ...], size: int) -> np.ndarray:
        generator = randomness.generator(self._seed, what + self._name, "/".join(map(str, key)))
        return torch.randperm(size, generator=generator).numpy()


def accumulation(global_batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Return A, the number of micro-batches in which each rank does its part of an optimizer step."""
    return _ceil_div(_ceil_div(global_batch_size, world_size), micro_batch_size)


def idle_devices(global_batch_size: int, world_size: int) -> str | None:
    """Return a warning if an optimizer step has fewer samples than there are devices."""
    if global_batch_size >= world_size:
        return None
    return (
        f"data.global_batch_size={global_batch_size}: smaller than the {world_size} devices:"
        f" {world_size - global_batch_size} of them train on nothing; choose at least {world_size}"
    )


def loss_scale(global_batch_size: int, micro_batch_size: int, world_size: int) -> float:
    """Return R A / G, the factor of a micro-batch's sum of weighted losses.

    The trainer divides by A and averages over R ranks, so that the step's gradient is that of the mean loss of G.
    """
    return world_size * accumulation(global_batch_size, micro_batch_size, world_size) / global_batch_size


@dataclass(frozen=True)
class MicroBatch:
    """The positions of one micro-batch."""

    positions: tuple[int, ...]
    """With ``PADDING`` for slots without a sample."""
    first: int
    """First position of the optimizer step, which determines the shape of the batch, even if it is all padding."""


def micro_batches(
    step: int, global_batch_size: int, micro_batch_size: int, rank: int, world_size: int
) -> Iterator[MicroBatch]:
    """Yield a rank's A micro-batches of one optimizer step.

    Rank r takes the slots j = r modulo R. All micro-batches of all ranks have one length, the shortest that will do,
    and are filled up with ``PADDING``.
    """
    num_batches = accumulation(global_batch_size, micro_batch_size, world_size)
    size = _ceil_div(_ceil_div(global_batch_size, world_size), num_batches)
    first = step * global_batch_size
    for batch in range(num_batches):
        slots = (rank + world_size * place for place in range(batch * size, (batch + 1) * size))
        yield MicroBatch(tuple(first + j if j < global_batch_size else PADDING for j in slots), first)


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
