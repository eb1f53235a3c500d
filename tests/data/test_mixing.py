"""The order over several sets and shapes against an exhaustive small world, on 1 to 8 ranks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import pytest

from tests.data.shard_sets import table_of
from vdm.data.mixing import Bucket, ListedOrder, MixedOrder, MixedPlace, fill_buckets
from vdm.data.order import PADDING, micro_batches
from vdm.data.shards import Kind, Shape

A, B, C = (4, 16, 32), (2, 32, 16), (1, 16, 32)
ONE_SET = ([{A: 3}, {A: 4}],)
BUCKETS = ([{A: 3, B: 1}, {B: 2}, {A: 2, B: 3, C: 1}],)
MIXTURE = ([{A: 3, B: 1}, {A: 5}], [{C: 6}], [{A: 2, C: 1}, {B: 3}])
WORLDS = (ONE_SET, BUCKETS, MIXTURE)
WEIGHTS = (Fraction(2), Fraction(1), Fraction("0.5"))


def buckets_of(
    world: Sequence[Sequence[Mapping[Shape, int]]], shape_of: Callable[[Kind], Shape | None] = lambda kind: kind.shape
) -> tuple[tuple[Bucket, ...], int]:
    return fill_buckets(list(map(table_of, world)), [None] * len(world), shape_of)


def order_of(world: Sequence[Sequence[Mapping[Shape, int]]], global_batch_size: int, seed: int = 0) -> MixedOrder:
    buckets, _ = buckets_of(world)
    return MixedOrder(seed, buckets, WEIGHTS[: len(world)], global_batch_size, num_streams=2, shuffle_window=3)


def sample_of(place: MixedPlace) -> tuple[int, int, int, int]:
    return (place.set, place.bucket, place.place.shard, place.place.sample)


@pytest.mark.parametrize("world", WORLDS)
def test_buckets_hold_every_sample_of_every_set_once(world: Sequence[Sequence[Mapping[Shape, int]]]) -> None:
    sets = [table_of(shards) for shards in world]
    buckets, num_unusable = buckets_of(world)
    order = ListedOrder(buckets)
    total = sum(shard.num_samples for shards in sets for shard in shards)
    assert (sum(bucket.num_samples for bucket in buckets), num_unusable) == (total, 0)
    listed = [order.locate(position) for position in range(total)]
    expected = {
        (number, buckets_index, shard, sample)
        for buckets_index, bucket in enumerate(buckets)
        for number, shards in enumerate(sets)
        for shard, entry in enumerate(shards)
        for sample in range(entry.kinds.get(Kind(bucket.shape), 0))
    }
    assert len(listed) == len(expected)
    assert {sample_of(place) for place in listed} == expected


def test_several_stored_shapes_may_come_out_in_one_and_short_clips_are_left_out() -> None:
    buckets, num_unusable = buckets_of(BUCKETS, lambda kind: (2, 8, 8) if kind.shape[0] >= 2 else None)
    (bucket,) = buckets
    assert (bucket.shape, bucket.stored, num_unusable) == ((2, 8, 8), {0: frozenset({Kind(A), Kind(B)})}, 1)
    assert {number: counts.tolist() for number, counts in bucket.samples_per_shard.items()} == {0: [4, 2, 5]}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("global_batch_size", [1, 3, 4])
def test_every_step_is_of_one_shape(world: Sequence[Sequence[Mapping[Shape, int]]], global_batch_size: int) -> None:
    order = order_of(world, global_batch_size)
    for step in range(60):
        positions = range(step * global_batch_size, (step + 1) * global_batch_size)
        assert len({order.locate(position).bucket for position in positions}) == 1


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("global_batch_size", [1, 3])
def test_each_epoch_of_a_set_in_a_bucket_visits_each_sample_once(
    world: Sequence[Sequence[Mapping[Shape, int]]], global_batch_size: int
) -> None:
    order = order_of(world, global_batch_size)
    visits: dict[tuple[int, int, int], Counter[tuple[int, int, int, int]]] = {}
    for place in map(order.locate, range(600)):
        visits.setdefault((place.set, place.bucket, place.place.epoch), Counter())[sample_of(place)] += 1
    sizes = {
        (number, index): sum(shard.kinds.get(Kind(bucket.shape), 0) for shard in shards)
        for index, bucket in enumerate(buckets_of(world)[0])
        for number, shards in enumerate([table_of(shards) for shards in world])
    }
    for (number, bucket, epoch), counts in visits.items():
        assert set(counts.values()) == {1}
        if (number, bucket, epoch + 1) in visits:
            assert len(counts) == sizes[number, bucket]


@pytest.mark.parametrize("seed", [0, 1])
def test_over_whole_cycles_sets_get_their_weights_and_their_samples_equal_turns(seed: int) -> None:
    order = order_of(MIXTURE, 2, seed)
    # In 36ths of all weight: A has 64 + 6 of the sets 0 and 2, B 8 + 9, C 36 + 3 of the sets 1 and 2. So 126 steps are
    # a cycle of buckets, and of 2 positions each they hold whole cycles of sets: 4 of 35, 2 of 17 and 6 of 13.
    shares = Counter((place.set, place.bucket) for place in map(order.locate, range(2 * 2 * 126)))
    in_a_step_each = {(0, 2): 64, (2, 2): 6, (0, 1): 8, (2, 1): 9, (1, 0): 36, (2, 0): 3}  # buckets by shape: C, B, A
    assert shares == {key: 2 * 2 * count for key, count in in_a_step_each.items()}
    assert sum(in_a_step_each[0, bucket] for bucket in (1, 2)) == 2 * 36  # the weight of set 0


def test_buckets_of_one_set_come_in_the_proportion_of_their_samples() -> None:
    order = order_of(BUCKETS, 5)  # 5 of A, 6 of B, 1 of C: a cycle is 12 steps
    for cycle in range(10):
        buckets = Counter(order.locate(5 * step).bucket for step in range(12 * cycle, 12 * (cycle + 1)))
        assert buckets == {0: 1, 1: 6, 2: 5}  # C, B, A by shape


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("global_batch_size", [3, 4, 10])
def test_any_numbers_of_ranks_give_the_uninterrupted_sequence(
    world: Sequence[Sequence[Mapping[Shape, int]]], global_batch_size: int
) -> None:
    reference = order_of(world, global_batch_size)
    step = 0
    for world_size in range(1, 9):
        fresh = order_of(world, global_batch_size)  # a process that was started anew
        for _ in range(3):
            found: dict[int, MixedPlace] = {}
            for rank in range(world_size):
                for batch in micro_batches(step, global_batch_size, 2, rank, world_size):
                    bucket, _ = fresh.bucket_of(batch.first)
                    places = {p: fresh.locate(p) for p in batch.positions if p != PADDING}
                    assert {place.bucket for place in places.values()} <= {bucket}
                    assert not places.keys() & found.keys()
                    found |= places
            positions = range(step * global_batch_size, (step + 1) * global_batch_size)
            assert found == {position: reference.locate(position) for position in positions}
            step += 1


def test_a_position_costs_the_same_wherever_it_is() -> None:
    order = order_of(MIXTURE, 4)
    assert order.locate(10**15) == order_of(MIXTURE, 4).locate(10**15)
    assert order.locate(10**15).place.epoch > 10**12
