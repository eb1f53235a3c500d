"""Clips of shard sets as a source, and videos that a model samples with their conditions."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.data.shard_sets import SHAPE, color_of, key_of, write_set
from tests.training.runs import configuration
from vdm.assembly.model import VideoDiffusionModel
from vdm.data.datamodule import ClipDataModule
from vdm.evaluation.base import EvaluatedClip
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.sources.base import Block, UnusableClip, blocks_of_rank
from vdm.evaluation.sources.sampled import SampledVideos
from vdm.evaluation.sources.shard_clips import ShardClips
from vdm.training.training_run import build_training
from vdm.types import ClipSize

RULE = ClipRule(3)


def data_of(shards: Path) -> ClipDataModule:
    return ClipDataModule(str(shards), 2, 2, num_workers=0, max_validation_clips=None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("source") / "shards", {"train": (6,), "validation": (3, 2)})


def seen(source: ShardClips | SampledVideos, blocks: Sequence[Block]) -> dict[int, EvaluatedClip]:
    found: dict[int, EvaluatedClip] = {}
    for number, views in source.views(blocks, [RULE]):
        clip = views[RULE]
        assert isinstance(clip, EvaluatedClip)
        found[number] = clip
    return found


def test_all_clips_of_a_split_come_with_all_that_is_known(shards: Path) -> None:
    source = ShardClips(data_of(shards))
    assert len(source) == 5
    clips = seen(source, [range(2), range(2, 5)])
    assert list(clips) == list(range(5))
    for number, clip in enumerate(sorted(clips.values(), key=lambda clip: clip.key)):
        assert (clip.key, clip.caption, clip.fps) == (key_of("validation", number), f"clip {number}", 8.0)
        assert clip.label == (number % 3 if number % 4 else None)
        assert clip.video.shape == (3, RULE.num_frames, *SHAPE[1:])
        colors = torch.tensor([color_of(number, frame) for frame in range(RULE.num_frames)]).float()
        torch.testing.assert_close(clip.video.float().mean((2, 3)).T, colors, atol=3.0, rtol=0)


@pytest.mark.parametrize(("max_clips", "numbers"), [(2, [0, 2]), (3, [0, 1, 3]), (9, [0, 1, 2, 3, 4])])
def test_fewer_clips_are_spread_over_the_split(shards: Path, max_clips: int, numbers: list[int]) -> None:
    source = ShardClips(data_of(shards), max_clips=max_clips)
    found = seen(source, [range(len(source))])
    assert sorted(clip.key for clip in found.values()) == [key_of("validation", number) for number in numbers]


def test_the_first_clips_stand_for_all_however_they_are_sorted(tmp_path: Path) -> None:
    source = ShardClips(data_of(write_set(tmp_path / "shards", {"train": (1,), "validation": (20, 20)})))
    keys = [clip.key for clip in seen(source, [range(10)]).values()]
    assert keys != sorted(keys)
    assert 0 < sum(key < key_of("validation", 20) for key in keys) < 10


def test_damaged_clip_is_said_among_the_others(tmp_path: Path) -> None:
    shards = write_set(tmp_path / "shards", {"train": (1,), "validation": (3,)})
    (tar,) = shards.glob("validation-*.tar")
    content = tar.read_bytes()
    start = content.index(b"ftyp")
    tar.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    clips = [views[RULE] for _, views in ShardClips(data_of(shards)).views([range(3)], [RULE])]
    first, *others = sorted(clips, key=lambda clip: clip.key)
    assert isinstance(first, UnusableClip)
    assert first.key == key_of("validation", 0)
    assert [one.key for one in others] == [key_of("validation", 1), key_of("validation", 2)]


def test_only_clips_of_one_shape_are_taken_where_one_is_named(tmp_path: Path) -> None:
    shapes = ((4, 16, 32), (4, 32, 16))
    shards = write_set(tmp_path / "shards", {"train": (2, 2), "validation": (3, 2)}, shapes)
    assert len(ShardClips(data_of(shards))) == 5
    found = seen(ShardClips(data_of(shards), shape=shapes[1]), [range(2)])
    assert {tuple(clip.video.shape[2:]) for clip in found.values()} == {shapes[1][1:]}
    with pytest.raises(ValueError, match=r"no usable clips in its split validation$"):
        ShardClips(data_of(shards), shape=(4, 8, 8))


def test_identity_is_that_of_split_clips_and_content(shards: Path, tmp_path: Path) -> None:
    copy = write_set(tmp_path / "copy", {"train": (6,), "validation": (3, 2)})
    other = write_set(tmp_path / "other", {"train": (6,), "validation": (3, 3)})
    mine = ShardClips(data_of(shards)).identity
    assert ShardClips(data_of(copy)).identity == mine
    others = {
        ShardClips(data_of(shards), "train").identity,
        ShardClips(data_of(shards), max_clips=2).identity,
        ShardClips(data_of(other)).identity,
    }
    assert len(others | {mine}) == 4


@pytest.fixture(scope="module")
def model(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> VideoDiffusionModel:
    training = build_training(configuration(shards), tmp_path_factory.mktemp("model"))
    return training.module.model.eval()


def sampled(model: VideoDiffusionModel, shards: Path, num_videos: int, seed: int = 0) -> SampledVideos:
    held_out = ShardClips(data_of(shards), shape=SHAPE)
    return SampledVideos("the model", model, held_out, ClipSize(*SHAPE), 8.0, num_videos, seed, batch_size=2)


def test_sampled_video_does_not_depend_on_how_blocks_are_shared(model: VideoDiffusionModel, shards: Path) -> None:
    source = sampled(model, shards, 7)
    alone = seen(source, blocks_of_rank(7, source.block_size, 0, 1))
    shared: dict[int, EvaluatedClip] = {}
    for rank in range(3):
        shared |= seen(sampled(model, shards, 7), blocks_of_rank(7, source.block_size, rank, 3))
    assert sorted(shared) == sorted(alone) == list(range(7))
    for number, clip in alone.items():
        torch.testing.assert_close(shared[number].video, clip.video, rtol=0, atol=0)
        assert shared[number].key == clip.key
    held_out = seen(ShardClips(data_of(shards), shape=SHAPE), [range(5)])
    assert [clip.caption for clip in alone.values()] == [held_out[number % 5].caption for number in range(7)]
    assert len({clip.caption for clip in alone.values()}) == 5
    assert not torch.equal(alone[0].video, alone[5].video)  # of one held-out clip, by other noise


def test_sampled_videos_follow_the_seed_and_their_number_alone(model: VideoDiffusionModel, shards: Path) -> None:
    few, many = seen(sampled(model, shards, 1), [range(1)]), seen(sampled(model, shards, 3), [range(2), range(2, 3)])
    torch.testing.assert_close(few[0].video, many[0].video, rtol=0, atol=0)
    assert not torch.equal(seen(sampled(model, shards, 1, seed=1), [range(1)])[0].video, few[0].video)


def test_empty_block_samples_in_vain_to_stay_in_step(
    model: VideoDiffusionModel, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vdm.evaluation.sources import sampled as module

    calls: list[int] = []
    generate = module.generate
    monkeypatch.setattr(module, "generate", lambda *args, **more: calls.append(args[4]) or generate(*args, **more))
    blocks = blocks_of_rank(3, 2, 2, 3)
    assert blocks == [range(0)]
    assert seen(sampled(model, shards, 3), blocks) == {}
    assert calls == [2]


def test_steps_within_a_block_are_told(model: VideoDiffusionModel, shards: Path) -> None:
    told: list[tuple[int, int | None]] = []
    held_out = ShardClips(data_of(shards), shape=SHAPE)

    def tell(step: int, total: int | None) -> None:
        told.append((step, total))

    source = SampledVideos("the model", model, held_out, ClipSize(*SHAPE), 8.0, 3, batch_size=2, on_step=tell)
    seen(source, blocks_of_rank(3, 2, 0, 1))
    assert told == 2 * [(1, 2), (2, 2)]


def test_metric_of_more_frames_than_the_model_makes_is_refused(model: VideoDiffusionModel, shards: Path) -> None:
    source = sampled(model, shards, 3)
    source.check("m", ClipRule(4))
    with pytest.raises(
        ValueError, match=r"^metric\.m: a video of the model has 4 frames; 5 take 5; metric\.m\.num_frames=4 looks"
    ):
        source.check("m", ClipRule(5))
