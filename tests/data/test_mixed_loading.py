"""Several sets and shapes through the loader: what a batch holds, resume, ranks, damage."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.data import shard_sets
from tests.data.loading import assert_equal, keys_by_position, module, take
from tests.data.shard_sets import SHAPE, encode_pixels, write_set
from vdm.data.clips import ClipSampling
from vdm.data.datamodule import ClipDataModule
from vdm.data.index import read_index, write_index
from vdm.data.shard_table import ShardTable
from vdm.data.shards import Kind

WIDE, TALL, STILL = SHAPE, (2, 32, 16), (1, 16, 32)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Videos of two shapes, and single frames."""
    root = tmp_path_factory.mktemp("mixture")
    videos = write_set(root / "videos", {"train": (4, 3, 5), "validation": (2, 2)}, (WIDE, TALL))
    stills = write_set(root / "stills", {"train": (6, 2)}, (STILL,))
    return {str(videos): 2, str(stills): 1}


def test_a_batch_has_one_shape_and_all_shapes_come(mixture: dict[str, float]) -> None:
    data = module(mixture)
    data.check()
    assert data.clip_shapes == (STILL, TALL, WIDE)
    assert data.clip_shape == WIDE
    shapes = set()
    for first, second in zip(*[iter(take(data.train_dataloader(), 40))] * 2, strict=True):  # two micro-batches a step
        assert first.video.shape == second.video.shape
        assert first.weights.min() == 1
        shapes.add(tuple(first.video.shape[2:]))
    assert shapes == {STILL, TALL, WIDE}


def test_resumed_mixture_equals_the_uninterrupted_one_on_any_ranks(mixture: dict[str, float]) -> None:
    num_steps, state = 0, None
    resumed: dict[int, str] = {}
    for world_size, steps in ((1, 2), (3, 3), (8, 1), (2, 4)):
        for rank in range(world_size):
            data = module(mixture, rank, world_size)
            data.load_state_dict(state) if state else None
            resumed |= keys_by_position(take(data.train_dataloader(), steps * data.accumulation(world_size)))
            data.consumed(steps * 6)
        num_steps += steps
        state = json.loads(json.dumps(data.state_dict()))
    data = module(mixture)
    assert resumed == keys_by_position(take(data.train_dataloader(), num_steps * data.accumulation(1)))
    assert sorted(resumed) == list(range(num_steps * 6))


def test_batches_of_a_mixture_do_not_depend_on_the_number_of_workers(mixture: dict[str, float]) -> None:
    expected = take(module(mixture, num_images_per_clip=1).train_dataloader(), 12)
    data = module(mixture, num_images_per_clip=1, num_workers=2)
    for batch, other in zip(take(data.train_dataloader(), 12), expected, strict=True):
        assert_equal(batch, other)
    data.close()


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_the_validation_clips_of_all_shapes(mixture: dict[str, float], world_size: int) -> None:
    loaders = [module(mixture, rank, world_size).val_dataloader() for rank in range(world_size)]
    assert len({len(loader) for loader in loaders}) == 1
    assert keys_by_position(batch for loader in loaders for batch in loader).keys() == set(range(4))
    held_out = module(mixture).held_out_clips(4)
    assert held_out is not None
    assert len(held_out) == 2


def test_a_changed_mixture_is_refused_on_resume(mixture: dict[str, float]) -> None:
    state = module(mixture).state_dict()
    with pytest.raises(ValueError, match=r"^data\.weights=\['1', '1'\]: the checkpoint was trained with \['2', '1'\]"):
        module(dict.fromkeys(mixture, 1)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"^data\.clips=.*: the checkpoint was trained with"):
        module(mixture, clips=ClipSampling([(1, 8, 8)])).load_state_dict(state)


def test_clips_are_cut_to_the_shapes_asked_for(mixture: dict[str, float]) -> None:
    clips = ClipSampling([(2, 8, 8), (1, 8, 16)], crop="random", mirror_fraction=0.5)
    data = module(mixture, clips=clips)
    assert data.clip_shapes == ((1, 8, 16), (2, 8, 8))
    batches = take(data.train_dataloader(), 12)
    assert {tuple(batch.video.shape[1:]) for batch in batches} == {(3, 1, 8, 16), (3, 2, 8, 8)}
    for batch in batches:
        assert batch.weights.min() == 1
        assert batch.crops is not None
        assert {tuple(row) for row in batch.crops[:, :2].tolist()} <= {(16, 32), (32, 16)}
        assert batch.video.float().std(dim=(3, 4)).max() < 3  # frames of one colour stay so


def test_clips_and_images_of_classes_that_name_sides_are_not_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are 0 to 2, or -1 for none; captions say nothing of sides."""
    ramp = torch.linspace(40, 200, 32).expand(3, 4, 16, 32).to(torch.uint8)  # c t h w, brighter to the right
    monkeypatch.setattr(shard_sets, "encode_clip", lambda number, shape: encode_pixels(ramp))
    labels = ("to the left", "from right to left", "upwards")
    path = write_set(tmp_path / "shards", {"train": (8,)}, (WIDE,), labels)
    data = module(path, clips=ClipSampling(mirror_fraction=0.5), num_images_per_clip=2, max_validation_clips=0)
    clips: dict[int, set[bool]] = {}
    images: dict[int, set[bool]] = {}
    for batch in take(data.train_dataloader(), 30):
        assert batch.images is not None
        for found, labels_of, pixels in (
            (clips, batch.labels, batch.video[:, :, 0]),  # b c h w
            (images, batch.images.labels.flatten(), batch.images.pixels.transpose(1, 2).flatten(0, 1)),
        ):
            for label, picture in zip(labels_of.tolist(), pixels.float(), strict=True):
                found.setdefault(label, set()).add(bool(picture[..., 0].mean() > picture[..., -1].mean()))
    assert clips == images == {0: {False}, 1: {False}, 2: {False, True}, -1: {False, True}}


def test_the_rate_of_frames_follows_the_stride(mixture: dict[str, float]) -> None:
    (videos, _) = mixture
    data = module(videos, clips=ClipSampling([(2, 16, 32)], frame_stride=2))
    (batch,) = take(data.train_dataloader(), 1)
    assert batch.fps.unique().tolist() == [4.0]
    assert data.fps == 4.0
    assert data.training.num_unusable == 3  # the tall ones have two frames


def test_sets_of_different_rates_are_seen_at_one(tmp_path: Path) -> None:
    paths = [write_set(tmp_path / name, {"train": (4,), "validation": (1,)}) for name in "abc"]
    for path, fps in zip(paths, (8.0, 16.0, 4.0), strict=True):
        write_index(path, replace(read_index(path), fps=fps))
    data = module(dict.fromkeys(map(str, paths[:2]), 1.0), clips=ClipSampling([(2, 16, 32)], fps=8.0, start="first"))
    assert data.fps == 8.0
    steps: set[int] = set()
    for batch in take(data.train_dataloader(), 4):
        assert batch.fps.tolist() == [8.0] * len(batch)
        green = batch.video[:, 1].float().mean((2, 3))  # b t; it grows by 30 from one stored frame to the next
        steps |= {round(step / 30) for step in (green[:, 1] - green[:, 0]).tolist()}
    assert steps == {1, 2}
    slow = r"are of fewer frames a second than clips.fps=8, or of an unknown rate"
    with pytest.raises(ValueError, match=rf"split 'train'; all of its 4 {slow}$"):
        module(paths[2], clips=ClipSampling(fps=8.0)).check()
    index = read_index(paths[0])
    kinds = {
        split: ShardTable.of(
            replace(shard, kinds={Kind(SHAPE, fps): shard.num_samples}) for shard in index.splits[split]
        )
        for split, fps in (("train", 8.0), ("validation", 4.0))
    }
    write_index(paths[2], replace(index, splits=kinds, fps=None))
    with pytest.raises(
        ValueError, match=rf"split 'validation'; all of its 1 {slow}; data.max_validation_clips=0 trains"
    ):
        module(paths[2], clips=ClipSampling(fps=8.0), check_shards=False).check()
    with pytest.raises(ValueError, match="stored_latents=True: latents can't be cut"):
        module(paths[0], clips=ClipSampling(fps=8.0), stored_latents=True)


def test_damage_in_a_mixture_keeps_positions(make_shard_set: Callable[..., Path], mixture: dict[str, float]) -> None:
    path = make_shard_set(train=(5,), validation=(1,))
    shard = path / read_index(path).splits["train"][0].name
    shard.write_bytes(bytes(shard.stat().st_size))
    videos = next(iter(mixture))
    data = module({str(path): 1, videos: 1}, max_bad_fraction=1.0, max_validation_clips=0, check_shards=False)
    data.trainer = None
    weights: dict[int, float] = {}
    for batch in take(data.train_dataloader(), 20):
        weights |= dict(zip(batch.positions.tolist(), batch.weights.tolist(), strict=True))
        bad = batch.weights == 0
        assert not batch.video[bad].any()
        assert all((key == "") == bool(b) for key, b in zip(batch.keys, bad, strict=True))
    assert sorted(weights) == list(range(60))
    assert 0 < sum(weights.values()) < 60


def test_mistakes_in_a_mixture_are_one_line(mixture: dict[str, float], tmp_path: Path) -> None:
    videos, stills = mixture

    def message(path: object, **settings: object) -> str:
        with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
            module(path, **settings).check()
        return str(error.value)

    assert message({}) == "path={}: names no set"
    assert message({videos: 0}) == f"path: {videos}: its weight is 0; must be above 0"
    assert "too short" in message(stills, clips=ClipSampling([(2, 8, 8)]), max_validation_clips=0)
    assert message(stills).startswith(f"{stills}: the set has no samples in the split 'validation'")
    others = write_set(tmp_path / "others", {"train": (1,)}, labels=("cat",))
    assert "different classes" in message({videos: 1, str(others): 1})


def test_positions_of_one_set_do_not_depend_on_micro_batches(mixture: dict[str, float]) -> None:
    whole = module(mixture, micro_batch_size=6)
    parts = module(mixture, micro_batch_size=1)
    videos = {
        p: v for b in take(whole.train_dataloader(), 6) for p, v in zip(b.positions.tolist(), b.video, strict=True)
    }
    for batch in take(parts.train_dataloader(), 36):
        assert torch.equal(batch.video[0], videos[int(batch.positions[0])])


def test_the_configuration_takes_one_path_or_several_with_weights() -> None:
    assert ClipDataModule("shards", 4, 4).weights == {"shards": 1.0}
    assert ClipDataModule({"a": 3, "s3://b/c": 0.5}, 4, 4).weights == {"a": 3, "s3://b/c": 0.5}
