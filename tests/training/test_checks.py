"""Impossible configurations are refused in one line that names the key, before any training."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.shard_sets import write_set
from tests.training.runs import configuration, train
from vdm.config import ConfigError
from vdm.data.index import read_index, write_index
from vdm.diffusion.time_shifts import ConstantShift
from vdm.training.checks import check_together
from vdm.training.training_run import build_training


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.network.channels=[16,16,16,16,16,16]", "the network needs latents of a multiple of 64"),
        ("model.network.head_channels=5", "model.network: head_channels must divide"),
        ("model.network.attention_levels=[7]", "model.network: attention_levels must lie between 0 and 1"),
        ("+model.network.chanels=[16]", "model.network.chanels: unknown key"),
        ("model.network.num_blocks=two", "model.network.num_blocks: 'two' is not allowed"),
        ("sampler._target_=vdm.diffusion.samplers.ddim.DDMI", "sampler._target_"),
        ("sampler.num_steps=0", "sampler.num_steps: 0 is not allowed: must be at least 1"),
        ("data.path=nowhere", "data.path: nowhere: no such folder"),
        ("data.global_batch_size=0", "data.global_batch_size: 0 is not allowed: must be at least 1"),
        ("init_from=nowhere", "nowhere: no such folder"),
        ("model.conditioner.num_classes=2", "model.conditioner.num_classes=2: the set has 3 classes"),
        ("trainer.precision=fp8", "trainer.precision: 'fp8' is not allowed: must be '32-true'"),
        ("trainer.accelerator=abacus", "trainer.accelerator: 'abacus' is not allowed: must be 'auto', 'cpu'"),
        ("save.every_steps=0", "save.every_steps: 0 is not allowed: must be at least 1"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("averages.half_lives=[0]", "training.ema.half_lives[0]: [0] is not allowed: must be above 0"),
        ("averages.half_lives=[]", "training.ema: half_lives, sigma_rels: at least one"),
        ("averages.sigma_rels=[0.3]", "training.ema.sigma_rels[0]: [0.3] is not allowed: must be below 0.288675"),
        ("training.condition_dropout.text=2", "training.condition_dropout.text: 2 is not allowed: must be at most 1"),
        (
            "diffusion.schedule.schedule.log_snr_min=30",
            "diffusion.schedule.schedule: log_snr_min must lie below log_snr_max",
        ),
        ("validate.every_steps=0", "validate.every_steps"),
    ],
)
def test_impossible_configuration_is_refused_in_one_line(
    tmp_path: Path, shards: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        build_training(configuration(shards, override), tmp_path)
    assert "\n" not in str(refused.value)


def test_sampler_that_cannot_begin_where_the_schedule_ends_is_refused_before_training(
    tmp_path: Path, shards: Path
) -> None:
    config = configuration(shards, "sampler/spacing=karras", "sampler.spacing.sigma_max=1e6")
    with pytest.raises(ConfigError, match=r"^sampler: sigma_max must lie in the schedule's .*, but is 1000000\.0$"):
        build_training(config, tmp_path)


def test_sampler_is_checked_on_the_times_that_it_will_walk_through(tmp_path: Path, shards: Path) -> None:
    """A shift so large, which configurations can't have, leaves no two times apart."""
    run = build_training(configuration(shards, "diffusion/time_shift=constant"), tmp_path)
    model = run.module.model
    check_together(model, run.data)

    model.diffusion = replace(model.diffusion, time_shift=ConstantShift(1e30))
    with pytest.raises(ConfigError, match=r"^sampler: spacing must give decreasing noise levels above 0"):
        check_together(model, run.data)


@pytest.mark.parametrize(
    ("num_uncaptioned", "expected"),
    [
        (4, [("WARNING", "none of the 4 training clips has a caption, and the model takes text")]),
        (1, [("INFO", "1 of 4 training clips have no caption")]),
        (0, []),
    ],
)
def test_clips_without_a_caption_are_counted_for_a_model_that_takes_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, num_uncaptioned: int, expected: list[tuple[str, str]]
) -> None:
    folder = write_set(tmp_path / "set", {"train": (4,), "validation": (1,)})
    counts = {"train": num_uncaptioned, "validation": 0}
    write_index(folder, replace(read_index(folder), num_uncaptioned=counts))
    with caplog.at_level("INFO", "vdm.data.usable_clips"):
        build_training(configuration(folder), tmp_path)
        build_training(configuration(folder, "text_encoder=none", without=("text_encoder.",)), tmp_path)
    found = [(record.levelname, record.getMessage().removeprefix(f"{folder}: ")) for record in caplog.records]
    assert [one for one in found if "caption" in one[1]] == expected


def test_folder_without_index_is_refused(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"data\.path: .*empty: has no index"):
        build_training(configuration(tmp_path / "empty"), tmp_path)


def test_set_without_labels_is_refused_for_classes(tmp_path: Path) -> None:
    shards = write_set(tmp_path / "shards", {"train": (3,), "validation": (1,)}, labels=())
    with pytest.raises(ConfigError, match=r"model\.conditioner\.num_classes=3: the set in .* has no labels"):
        build_training(configuration(shards, "model.conditioner.num_classes=3"), tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path, shards: Path) -> None:
    train(tmp_path / "first", configuration(shards, "trainer.max_steps=1"))
    other = configuration(shards, f"init_from={tmp_path / 'first'}", "model.network.channels=[16,32]")
    with pytest.raises(ValueError, match=r"init_from: .*weights of another model: network\..* has shape"):
        build_training(other, tmp_path / "second")
