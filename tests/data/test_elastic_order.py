"""Runs cut anywhere and resumed on any numbers of ranks and workers, without DataLoaders, against one that was not.

Every rank has its own sampler, and every worker its own order, as processes have; workers take a rank's micro-batches
in turn, as DataLoader's do, and load some ahead that a cut throws away. What counts is the sequence of sample ids that
optimizer steps consumed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import count, islice, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.shard_sets import table_of
from vdm.data.loader import TrainingPositions
from vdm.data.mixing import Bucket, MixedOrder, fill_buckets
from vdm.data.order import PADDING, accumulation
from vdm.data.shards import Shape

A, B, C = (4, 8, 8), (2, 8, 8), (1, 4, 4)
Sets = Sequence[Sequence[dict[Shape, int]]]
"""Samples of each shape, by set and shard."""
SampleId = tuple[int, int, Shape, int]
"""Set, shard, shape of the bucket and number in the shard among those of that shape."""

WORLDS: dict[str, tuple[Sets, Sequence[int]]] = {
    "one shard": ([[{A: 3}]], [1]),
    "one set": ([[{A: 5}, {A: 1}, {A: 4}]], [1]),
    "an empty shard": ([[{A: 2}, {}, {A: 5}]], [1]),
    "three buckets": ([[{A: 4, B: 1}, {B: 3}, {A: 2, C: 2}]], [1]),
    "a mixture": ([[{A: 4}, {B: 3}], [{C: 3, A: 1}, {A: 2}]], [3, 1]),
}
Part = tuple[int, int, int]
"""Ranks, workers beside each, optimizer steps until the cut."""


def buckets_of(sets: Sets) -> tuple[Bucket, ...]:
    return fill_buckets(list(map(table_of, sets)), [None] * len(sets), lambda kind: kind.shape)[0]


class World:
    """What a run is made of but for processes: all that its order may depend on."""

    def __init__(self, sets: Sets, weights: Sequence[int], g: int, streams: int = 3, window: int = 2, seed: int = 0):
        self.buckets, self.weights, self.g = buckets_of(sets), [Fraction(w) for w in weights], g
        self._order = (streams, window)
        self._seed = seed

    def order(self) -> MixedOrder:
        return MixedOrder(self._seed, self.buckets, self.weights, self.g, *self._order)

    def sample(self, order: MixedOrder, position: int) -> SampleId:
        found = order.locate(position)
        return found.set, found.place.shard, self.buckets[found.bucket].shape, found.place.sample

    def uninterrupted(self, num_steps: int) -> list[SampleId]:
        order = self.order()
        return [self.sample(order, position) for position in range(num_steps * self.g)]

    def run(self, parts: Sequence[Part], m: int) -> list[SampleId]:
        """Return the samples that steps consumed, in the order of steps and, within a step, of slots."""
        consumed: list[SampleId] = []
        for world_size, num_workers, num_steps in parts:
            first, loaded = len(consumed), dict[int, SampleId]()
            for rank in range(world_size):
                of_rank = self._load(first, rank, world_size, num_workers, num_steps, m)
                assert not of_rank.keys() & loaded.keys(), "two ranks have one position"
                loaded |= of_rank
            assert sorted(loaded) == list(range(first, first + num_steps * self.g))
            consumed += [loaded[position] for position in sorted(loaded)]
        return consumed

    def _load(
        self, first: int, rank: int, world_size: int, num_workers: int, num_steps: int, m: int
    ) -> dict[int, SampleId]:
        orders = [self.order() for _ in range(max(1, num_workers))]
        batches = iter(TrainingPositions(lambda: first, self.g, m, rank, world_size))
        num_batches = num_steps * accumulation(self.g, m, world_size)
        loaded: dict[int, SampleId] = {}
        for number, batch in enumerate(islice(batches, num_batches + num_workers)):
            order = orders[number % len(orders)]
            samples = {p: self.sample(order, p) for p in batch.positions if p != PADDING}
            if number < num_batches:
                loaded |= samples
        return loaded


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("g", [1, 4, 7])
def test_a_run_on_any_ranks_and_workers_cut_at_any_step_equals_the_uninterrupted_one(name: str, g: int) -> None:
    world = World(*WORLDS[name], g)
    num_steps = 3
    expected = world.uninterrupted(num_steps)
    elsewhere = count()
    for world_size, num_workers, cut in product(range(1, 9), range(4), range(num_steps + 1)):
        other = next(elsewhere)  # where the run goes on: every combination comes
        rest = (other % 8 + 1, other // 8 % 4, num_steps - cut)
        assert world.run([(world_size, num_workers, cut), rest], m=2) == expected, (world_size, num_workers, cut, rest)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(("g", "m"), [(2, 1), (5, 2), (6, 6)])
def test_ranks_may_change_at_every_resume_at_any_steps(name: str, g: int, m: int) -> None:
    world = World(*WORLDS[name], g)
    num_steps = 7
    expected = world.uninterrupted(num_steps)
    for first, second, third in product(range(3), repeat=3):
        steps = (first, second, third, num_steps - first - second - third)
        parts = list(zip((1, 2, 3, 2), (3, 1, 2, 0), steps, strict=True))
        assert world.run(parts, m) == expected, parts


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("g", [1, 3, 8, 30])
def test_each_sample_of_a_bucket_has_one_position_in_each_of_its_epochs(name: str, g: int) -> None:
    """Epochs of different buckets and sets end at different positions; visits of two samples of one differ by one."""
    world = World(*WORLDS[name], g)
    places = [world.order().locate(position) for position in range(400)]
    visits = Counter((p.bucket, p.set, p.place.epoch, p.place.shard, p.place.sample) for p in places)
    assert set(visits.values()) == {1}
    for number, bucket in enumerate(world.buckets):
        for set_number, counts in bucket.samples_per_shard.items():
            epochs = Counter(key[2] for key in visits if key[:2] == (number, set_number))
            assert all(epochs[epoch] == sum(counts) for epoch in range(max(epochs)))


counts_of_shapes = st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 6), max_size=3)
a_set = st.lists(counts_of_shapes, min_size=1, max_size=4).filter(any)


@st.composite
def runs(draw: Callable[..., Any]) -> tuple[dict[str, Any], int, list[Part]]:
    sets = draw(st.lists(a_set, min_size=1, max_size=3))
    weights = draw(st.lists(st.integers(1, 5), min_size=len(sets), max_size=len(sets)))
    g, streams, window = (draw(st.integers(1, high)) for high in (12, 5, 7))
    world = {"sets": sets, "weights": weights, "g": g, "streams": streams, "window": window}
    parts = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4)
    return {**world, "seed": draw(st.integers(0, 2**31))}, draw(st.integers(1, 5)), draw(parts)


@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(runs())
def test_random_runs_equal_uninterrupted_ones(run: tuple[dict[str, Any], int, list[Part]]) -> None:
    settings_of_world, m, parts = run
    world = World(**settings_of_world)
    assert world.run(parts, m) == world.uninterrupted(sum(num_steps for _, _, num_steps in parts))
