"""The data module: what its loaders yield, in which order, resumed, divided among ranks, and after faults."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.loading import assert_equal, keys_by_position, module, take
from tests.data.shard_sets import SHAPE, TRAIN_COUNTS, VALIDATION_COUNTS, color_of, key_of
from vdm.cli.faults import is_mistake, one_line
from vdm.data.index import ShardIndex, read_index, write_index
from vdm.data.mixing import MixedOrder, fill_buckets
from vdm.data.quarantine import TooManyBadSamplesError
from vdm.data.retries import StorageFailedError
from vdm.data.shard_table import ShardTable
from vdm.data.shards import ShardEntry, checksum
from vdm.data.sidecars import read_samples

N = sum(TRAIN_COUNTS)
STARTS = [sum(TRAIN_COUNTS[:i]) for i in range(len(TRAIN_COUNTS))]


def test_a_batch_holds_the_samples_of_its_positions(shard_set: Path) -> None:
    buckets, _ = fill_buckets([read_index(shard_set).splits["train"]], [None], lambda stored: stored.shape)
    order = MixedOrder(0, buckets, [Fraction(1)], global_batch_size=6, num_streams=3, shuffle_window=4)
    for batch in take(module(shard_set, seed=0).train_dataloader(), 10):
        for i, position in enumerate(batch.positions.tolist()):
            place = order.locate(position).place
            number = STARTS[place.shard] + place.sample
            assert batch.keys[i] == key_of("train", number)
            assert batch.captions[i] == f"clip {number}"
            assert batch.labels[i] == (number % 3 if number % 4 else -1)
            assert batch.fps[i] == 8
            assert batch.weights[i] == 1
            colors = torch.tensor([color_of(number, frame) for frame in range(SHAPE[0])])
            assert (batch.video[i].float() - colors.T[:, :, None, None]).abs().max() <= 2


def test_the_index_is_exposed(shard_set: Path) -> None:
    data = module(shard_set)
    assert data.clip_shape == SHAPE
    assert data.label_names == ("zero", "one", "two")
    assert data.num_train_samples == N
    assert (data.accumulation(1), data.accumulation(2)) == (2, 1)  # 6 = 3 + 3 on one rank of at most 4
    assert data.loss_scale(2) == pytest.approx(2 * 1 / 6)


def test_batches_do_not_depend_on_the_number_of_workers(shard_set: Path) -> None:
    expected = take(module(shard_set, num_images_per_clip=2).train_dataloader(), 12)
    for num_workers in (1, 2):
        data = module(shard_set, num_images_per_clip=2, num_workers=num_workers)
        batches = take(data.train_dataloader(), 12)
        for batch, other in zip(batches, expected, strict=True):
            assert_equal(batch, other)
        validation = list(data.val_dataloader())
        assert [batch.keys for batch in validation] == [b.keys for b in module(shard_set).val_dataloader()]


@pytest.mark.parametrize("global_batch_size", [4, 6, 50])
def test_resumed_loading_equals_uninterrupted_loading(shard_set: Path, global_batch_size: int) -> None:
    """Killed after some steps with batches prefetched, and resumed on 1 to 8 ranks that need not divide G."""
    num_steps = 0
    state = None
    resumed: dict[int, str] = {}
    for world_size, steps in ((1, 2), (2, 1), (3, 3), (8, 1), (2, 1)):
        for rank in range(world_size):
            data = module(shard_set, rank, world_size, global_batch_size=global_batch_size)
            data.load_state_dict(state) if state else None
            part = keys_by_position(take(data.train_dataloader(), steps * data.accumulation(world_size) + 1)[:-1])
            assert not part.keys() & resumed.keys()
            resumed |= part
            data.consumed(steps * global_batch_size)
        num_steps += steps
        state = json.loads(json.dumps(data.state_dict()))
    data = module(shard_set, global_batch_size=global_batch_size)
    assert resumed == keys_by_position(take(data.train_dataloader(), num_steps * data.accumulation(1)))
    assert sorted(resumed) == list(range(num_steps * global_batch_size))


def test_a_new_iteration_starts_at_the_position(shard_set: Path) -> None:
    data = module(shard_set, num_workers=1)
    loader = data.train_dataloader()
    assert take(loader, 1)[0].positions.tolist() == [0, 1, 2]
    data.consumed(12)
    assert take(loader, 1)[0].positions.tolist() == [12, 13, 14]


def test_a_position_of_another_order_is_refused(shard_set: Path) -> None:
    state = module(shard_set).state_dict()
    with pytest.raises(ValueError, match=r"^data\.global_batch_size=8: the checkpoint was trained with 6,.*$"):
        module(shard_set, global_batch_size=8).load_state_dict(state)


def test_a_checkpoint_of_an_earlier_order_is_refused(shard_set: Path) -> None:
    state = module(shard_set).state_dict()
    del state["keys"]
    with pytest.raises(ValueError, match=r"^the checkpoint was made by an earlier version, .*; init_from=CHECKPOINT"):
        module(shard_set).load_state_dict(state)


def _edit_shards(path: Path, change: Callable[[int, ShardEntry], ShardEntry]) -> None:
    """Replace what the index says of each training shard."""
    index = read_index(path, check_sizes=False)
    splits = {**index.splits, "train": ShardTable.of(starmap(change, enumerate(index.splits["train"])))}
    write_index(path, replace(index, splits=splits))


def _other_bytes(number: int, shard: ShardEntry) -> ShardEntry:
    return replace(shard, checksum=checksum(b"other bytes %d" % number))


def _other_keys(number: int, shard: ShardEntry) -> ShardEntry:
    return replace(_other_bytes(number, shard), keys=checksum(b"other keys %d" % number))


def test_another_set_of_the_same_counts_is_refused_on_resume(make_shard_set: Callable[..., Path]) -> None:
    path = make_shard_set(train=(3, 3), validation=(1,))
    state = json.loads(json.dumps(module(path).state_dict()))
    shards = read_index(path).splits["train"]
    _edit_shards(path, _other_keys)
    with pytest.raises(ValueError, match=rf"^{path}: has other samples, .* the checkpoint was trained with, .*$"):
        module(path).load_state_dict(state)
    write_index(path, ShardIndex.of({"train": list(shards)[::-1]}))
    with pytest.raises(ValueError, match=rf"^{path}: has other samples, or others in order,"):
        module(path).load_state_dict(state)


def test_a_set_that_was_moved_or_made_again_with_the_same_keys_is_resumed(make_shard_set: Callable[..., Path]) -> None:
    path = make_shard_set(train=(3, 3), validation=(1,))
    data = module(path)
    data.consumed(12)
    state = json.loads(json.dumps(data.state_dict()))
    moved = path.rename(path.with_name("moved"))
    for change in (lambda _, shard: shard, _other_bytes):
        _edit_shards(moved, change)
        again = module(moved)
        again.load_state_dict(state)
        assert again.position == 12


def test_overfitting_repeats_the_samples_while_positions_go_on(shard_set: Path) -> None:
    data = module(shard_set, overfit_one_batch=True, micro_batch_size=6, num_images_per_clip=1)
    first, second, third = take(data.train_dataloader(), 3)
    for step, batch in enumerate((first, second, third)):
        assert batch.positions.tolist() == list(range(6 * step, 6 * step + 6))
        assert batch.keys == first.keys
        assert torch.equal(batch.video, first.video)
        assert batch.images is not None
        assert first.images is not None
        assert torch.equal(batch.images.pixels, first.images.pixels)


def test_images_are_frames_of_other_clips_and_deterministic(shard_set: Path) -> None:
    batches = take(module(shard_set, num_images_per_clip=3).train_dataloader(), 8)
    again = module(shard_set, num_images_per_clip=3, micro_batch_size=1)
    again.consumed(6)
    for position, batch in zip(range(6, 12), take(again.train_dataloader(), 6), strict=True):
        original = next(b for b in batches if position in b.positions.tolist())
        i = original.positions.tolist().index(position)
        assert original.images is not None
        assert batch.images is not None
        assert torch.equal(batch.images.pixels[0], original.images.pixels[i])
    frames = set()
    for batch in batches:
        assert batch.images is not None
        for i, j in ((i, j) for i in range(len(batch)) for j in range(3)):
            number = int(batch.images.captions[i][j].removeprefix("clip "))
            assert batch.images.labels[i, j] == (number % 3 if number % 4 else -1)
            red, green, _ = batch.images.pixels[i, :, j].float().mean((1, 2)).tolist()
            assert red == pytest.approx(color_of(number, 0)[0], abs=2)
            frames.add(round((green - 40) / 30))
    assert frames == set(range(SHAPE[0]))


@pytest.mark.parametrize("world_size", range(1, 9))
def test_ranks_share_the_validation_split(shard_set: Path, world_size: int) -> None:
    n = sum(VALIDATION_COUNTS)
    loaders = [module(shard_set, rank, world_size).val_dataloader() for rank in range(world_size)]
    assert len({len(loader) for loader in loaders}) == 1
    batches = [batch for loader in loaders for batch in loader]
    assert keys_by_position(batches) == {i: key_of("validation", i) for i in range(n)}
    assert {batch.video.shape for batch in batches} == {batches[0].video.shape}
    assert sum(float(batch.weights.sum()) for batch in batches) == n


def test_validation_clips_are_spread_over_the_split(shard_set: Path) -> None:
    (batch,) = module(shard_set, max_validation_clips=3).val_dataloader()
    assert batch.positions.tolist() == [0, 2, 4]
    (all_clips,) = module(shard_set, max_validation_clips=None, micro_batch_size=9).val_dataloader()
    assert all_clips.positions.tolist() == list(range(7))
    assert module(shard_set, max_validation_clips=0).val_dataloader() == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_clip_keeps_its_position_with_weight_zero(
    make_shard_set: Callable[..., Path], tmp_path: Path, num_workers: int
) -> None:
    path = make_shard_set(train=(5, 4), validation=(1,))
    name = read_index(path).splits["train"][1].name
    bad = read_samples(path, read_index(path).splits["train"][1])[2]
    with (path / name).open("r+b") as file:
        file.seek(bad.members["mp4"].offset)
        file.write(bytes(bad.members["mp4"].length))
    report = tmp_path / "quarantine.jsonl"
    data = module(path, global_batch_size=9, micro_batch_size=9, num_workers=num_workers, quarantine_path=report)
    for epoch, batch in enumerate(take(data.train_dataloader(), 2)):
        assert batch.positions.tolist() == list(range(9 * epoch, 9 * epoch + 9))
        assert batch.weights.sum() == 8
        blank = int(batch.weights.argmin())
        assert batch.video[blank].max() == 0
        assert bad.key not in batch.keys
    (row,) = [json.loads(line) for line in report.read_text().splitlines()]
    assert (row["shard"], row["key"], row["offset"]) == (name, bad.key, bad.members["mp4"].offset)
    assert "checksum" in row["reason"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_storage_that_fails_ends_the_run_in_one_line(make_shard_set: Callable[..., Path], num_workers: int) -> None:
    path = make_shard_set(train=(4, 4), validation=(1,))
    data = module(path, num_workers=num_workers)
    loader = data.train_dataloader()
    dataset: Any = loader._batches.dataset
    for reader in dataset._dataset._readers:
        reader.patience_seconds = 0.0
    path.rename(path.with_name("elsewhere"))
    try:
        with pytest.raises(StorageFailedError, match=rf"^{path}/train-.*No such file") as error:
            take(loader, 1)
    finally:
        data.close()
    assert is_mistake(error.value)
    assert one_line(error.value) == str(error.value)


def test_too_many_damaged_clips_stop_the_run(make_shard_set: Callable[..., Path]) -> None:
    path = make_shard_set(train=(4, 4), validation=(1,))
    shard = path / read_index(path).splits["train"][0].name
    shard.write_bytes(bytes(shard.stat().st_size))
    data = module(path, check_shards=False)
    data.trainer = None
    with pytest.raises(TooManyBadSamplesError, match=r"^1[1-3] of \d+ samples .* max_bad_fraction=0.05; the last: .*$"):
        take(data.train_dataloader(), 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_size": 0}, "global_batch_size=0: must be at least 1"),
        ({"micro_batch_size": -1}, "micro_batch_size=-1: must be at least 1"),
        ({"num_workers": -1}, "num_workers=-1: must be at least 0"),
        ({"num_streams": 0}, "num_streams=0: must be at least 1"),
        ({"shuffle_window": 0}, "shuffle_window=0: must be at least 1"),
        ({"num_images_per_clip": -1}, "num_images_per_clip=-1: must be at least 0"),
        ({"max_validation_clips": -1}, "max_validation_clips=-1: must be at least 0"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction=1.5: must lie between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(shard_set: Path, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        module(shard_set, **changes)


def test_unusable_sets_are_refused_in_one_line(tmp_path: Path, make_shard_set: Callable[..., Path]) -> None:
    def message(path: Path) -> str:
        with pytest.raises(ValueError, match=str(path)) as error:
            module(path).check()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "vdm-data build" in message(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "index.json" in message(empty)
    path = make_shard_set(train=(2,))
    assert "no samples in the split 'validation'" in message(path)
    module(path, max_validation_clips=0).check()
