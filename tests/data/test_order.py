"""The order of samples against an exhaustive small world: 1 to 8 ranks, any G, m, N, S and window."""

from collections import Counter
from itertools import product

import pytest
import torch

from vdm.data.order import PADDING, IndexOrder, ShuffledOrder, accumulation, loss_scale, micro_batches

COUNTS = ((1,), (3,), (5, 1, 9, 4, 4), (0, 2, 0, 7), (2,) * 11)
RANKS = range(1, 9)
GLOBAL_BATCH_SIZES = (1, 2, 5, 8, 13)


def samples(order: ShuffledOrder, positions: range) -> list[tuple[int, int]]:
    places = [order.locate(position) for position in positions]
    return [(place.shard, place.sample) for place in places]


def all_samples(counts: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(shard, sample) for shard, count in enumerate(counts) for sample in range(count)]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("num_streams", "window"), list(product((1, 2, 3, 7, 64), (1, 2, 5, 1000))))
def test_each_epoch_visits_each_sample_exactly_once(counts: tuple[int, ...], num_streams: int, window: int) -> None:
    order = ShuffledOrder(0, counts, num_streams, window)
    n = sum(counts)
    for epoch in range(3):
        visited = samples(order, range(epoch * n, (epoch + 1) * n))
        assert sorted(visited) == all_samples(counts)
        assert {order.locate(epoch * n + i).epoch for i in range(n)} == {epoch}


def test_epochs_and_seeds_have_different_orders() -> None:
    order, other = (ShuffledOrder(seed, (20, 30, 50), 4, 10) for seed in (0, 1))
    assert len({tuple(samples(o, range(e * 100, (e + 1) * 100))) for o in (order, other) for e in range(3)}) == 6


def test_a_sample_does_not_depend_on_what_was_asked_before() -> None:
    used = ShuffledOrder(0, COUNTS[2], 3, 4)
    in_sequence = samples(used, range(100))
    for position in (99, 0, 57, 23, 46):
        fresh = ShuffledOrder(0, COUNTS[2], 3, 4)
        assert samples(fresh, range(position, position + 1)) == [in_sequence[position]]


def test_index_order_goes_through_the_shards() -> None:
    order = IndexOrder((2, 0, 3))
    places = [order.locate(position) for position in range(5)]
    assert [(place.shard, place.sample) for place in places] == all_samples((2, 0, 3))


@pytest.mark.parametrize("world_size", RANKS)
@pytest.mark.parametrize("global_batch_size", GLOBAL_BATCH_SIZES)
@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 16])
def test_ranks_share_a_step_without_loss_or_repeat(
    world_size: int, global_batch_size: int, micro_batch_size: int
) -> None:
    for step in range(3):
        ranks = [
            list(micro_batches(step, global_batch_size, micro_batch_size, rank, world_size))
            for rank in range(world_size)
        ]
        assert {batch.first for batches in ranks for batch in batches} == {step * global_batch_size}
        positions = [p for batches in ranks for batch in batches for p in batch.positions if p != PADDING]
        assert sorted(positions) == list(range(step * global_batch_size, (step + 1) * global_batch_size))
        sizes = {len(batch.positions) for batches in ranks for batch in batches}
        assert len(sizes) == 1
        assert sizes.pop() <= micro_batch_size
        lengths = {len(batches) for batches in ranks}
        assert lengths == {accumulation(global_batch_size, micro_batch_size, world_size)}
        for rank, batches in enumerate(ranks):
            assert all(p % global_batch_size % world_size == rank for b in batches for p in b.positions if p != PADDING)


@pytest.mark.parametrize("world_size", RANKS)
@pytest.mark.parametrize("global_batch_size", GLOBAL_BATCH_SIZES)
def test_scaled_losses_average_to_the_mean_of_the_step(world_size: int, global_batch_size: int) -> None:
    micro_batch_size = 2
    losses = torch.rand(global_batch_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = loss_scale(global_batch_size, micro_batch_size, world_size)
    num_batches = accumulation(global_batch_size, micro_batch_size, world_size)
    reported = [
        sum(
            scale * sum(float(losses[p]) for p in batch.positions if p != PADDING) / num_batches
            for batch in micro_batches(0, global_batch_size, micro_batch_size, rank, world_size)
        )
        for rank in range(world_size)
    ]
    assert sum(reported) / world_size == pytest.approx(float(losses.mean()), rel=1e-12)


@pytest.mark.parametrize("global_batch_size", [4, 6, 10, 50])
def test_resuming_on_other_numbers_of_ranks_gives_the_uninterrupted_sequence(global_batch_size: int) -> None:
    order = ShuffledOrder(3, COUNTS[2], 4, 3)  # 23 samples, so that G = 50 is more than two epochs
    trained: list[tuple[int, int]] = []
    step = 0
    for world_size, num_steps in ((1, 3), (2, 4), (3, 2), (8, 1), (2, 5), (5, 2)):
        for _ in range(num_steps):
            ranks = range(world_size)
            batches = [b for rank in ranks for b in micro_batches(step, global_batch_size, 3, rank, world_size)]
            positions = sorted(p for batch in batches for p in batch.positions if p != PADDING)
            trained += [(order.locate(p).shard, order.locate(p).sample) for p in positions]
            step += 1
    assert trained == samples(order, range(step * global_batch_size))
    visits = Counter(trained)
    assert all(visits[sample] - step * global_batch_size // 23 in (0, 1) for sample in all_samples(COUNTS[2]))


@pytest.mark.parametrize(("num_shards", "shard_size"), [(200, 100), (20, 1000), (2, 1000), (1, 640), (1, 40)])
def test_a_set_sorted_by_class_is_mixed_like_independent_draws(num_shards: int, shard_size: int) -> None:
    """The mixing that the default streams and windows achieve, on the worst case, a set sorted by class.

    For spans of successive samples, Pearson's chi-square of the class counts, divided by what independent draws without
    replacement give: 1 is a perfect shuffle. Measured: 0.77 to 1.01 for spans of 16, and 0.04 to 0.79 for longer ones;
    one stream alone gives 2.4, 25 and 102 for spans of 16, 256 and 2,048 of 200 shards of 100.
    """
    num_classes = 10
    order = ShuffledOrder(0, (shard_size,) * num_shards, num_streams=64, shuffle_window=1024)
    n, num_epochs = num_shards * shard_size, 3 if num_shards == 1 else 1
    places = [order.locate(p) for p in range(num_epochs * n)]
    classes = torch.tensor([(p.shard * shard_size + p.sample) * num_classes // n for p in places]).view(num_epochs, n)
    for span in (span for span in (16, 256, 2048) if span < n):
        counts = torch.nn.functional.one_hot(classes[:, : n // span * span].reshape(-1, span), num_classes).sum(1)
        expected = span / num_classes
        chi_square = ((counts - expected) ** 2 / expected).sum(1).mean()
        assert chi_square / (num_classes - 1) / (1 - (span - 1) / (n - 1)) < 1.3


def test_sets_with_fewer_samples_than_streams_are_shuffled() -> None:
    order = ShuffledOrder(0, (10, 10), num_streams=64, shuffle_window=1024)
    epochs = [samples(order, range(epoch * 20, (epoch + 1) * 20)) for epoch in range(4)]
    assert all(epoch not in (all_samples((10, 10)), all_samples((10, 10))[::-1]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert all({shard for shard, _ in epoch[:10]} == {0, 1} for epoch in epochs)
