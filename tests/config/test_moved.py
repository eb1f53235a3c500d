"""What earlier versions recorded is read by its present names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.assembly.small_model import CONFIG, config
from vdm.assembly.build_model import build_model
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.run_record import load_config, write_config
from vdm.config import ConfigError, build, check
from vdm.config.moved import MOVED_KEYS, MOVED_TARGETS, modernized
from vdm.config.targets import resolve
from vdm.diffusion.frame_levels import IndependentFrames, KnownFramesClean
from vdm.known_frames import FirstFrames

FORMER = {**CONFIG["model"]["conditioner"], "_target_": "vdm.models.conditioner.Conditioner"}


def test_every_moved_class_is_where_the_table_says() -> None:
    for present in filter(None, MOVED_TARGETS.values()):
        resolve(present, "present", None)
        assert present not in MOVED_TARGETS


def test_no_key_is_moved_to_one_that_was_moved() -> None:
    assert not MOVED_KEYS.keys() & set(MOVED_KEYS.values())


def test_classes_are_renamed_at_any_depth_and_others_stay() -> None:
    recorded = {"a": [{"_target_": "old.A", "x": {"_target_": "old.B", "y": 1}}], "b": {"_target_": "mine.C"}}

    assert modernized(recorded, {"old.A": "new.A", "old.B": None}) == {
        "a": [{"_target_": "new.A", "x": {"y": 1}}],
        "b": {"_target_": "mine.C"},
    }
    assert recorded["b"] == {"_target_": "mine.C"}


@pytest.mark.parametrize(
    ("recorded", "present"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2}, "b": {"c": {"z": 1}}}),
        ({"a": {"x": None}, "b": {"d": 3}}, {"a": {}, "b": {"d": 3, "c": {"z": None}}}),
        ({"a": {"x": 1}, "b": {"c": {"z": 5}}}, {"a": {}, "b": {"c": {"z": 5}}}),
        ({"a": {"y": 2}}, {"a": {"y": 2}}),
        ({"a": None}, {"a": None}),
        ({"a": {"x": 1}, "b": 7}, {"a": {}, "b": 7}),
    ],
)
def test_keys_are_renamed_unless_the_present_one_is_there(recorded: dict, present: dict) -> None:
    assert modernized(recorded, {}, {"a.x": "b.c.z"}) == present


def test_targets_that_are_no_text_are_left_to_who_checks_them() -> None:
    assert modernized({"a": {"_target_": ["old.A"]}, "b": {"_target_": 3}}) == {
        "a": {"_target_": ["old.A"]},
        "b": {"_target_": 3},
    }


@pytest.mark.parametrize("module", ["vdm.training.module", "vdm.objectives.condition_dropout"])
def test_a_run_s_drop_out_is_read_as_the_mapping_that_it_is_now(tmp_path: Path, module: str) -> None:
    shares = {"all": 0.1, "text": 0.0}
    write_config(tmp_path, {"training": {"condition_dropout": {"_target_": f"{module}.ConditionDropout", **shares}}})

    assert load_config(tmp_path) == {"training": {"condition_dropout": shares}}


def test_a_model_recorded_by_its_former_classes_is_built(tmp_path: Path) -> None:
    write_config(tmp_path, config(model__conditioner=FORMER))
    run = RunConfig.read(tmp_path)

    assert run.parts["model"]["conditioner"] == CONFIG["model"]["conditioner"]
    build_model(run.parts, run.allowed_modules)


@pytest.mark.parametrize("refuse", [build, check])
def test_former_class_in_a_yaml_of_today_is_named_with_the_present_one(refuse: Callable[..., Any]) -> None:
    former = "vdm.models.conditioner.Conditioner"
    present = "vdm.models.embedding_conditioner.EmbeddingConditioner"
    with pytest.raises(ConfigError, match=rf"^model._target_: {former} is called {present} now$"):
        refuse({"_target_": former}, "model")
    with pytest.raises(ConfigError, match=r"^x._target_: vdm.training.module.ConditionDropout is to be left out now$"):
        refuse({"_target_": "vdm.training.module.ConditionDropout", "all": 0.1}, "x")


def test_a_clean_prefix_is_read_as_first_frames_that_are_known() -> None:
    former = {
        "_target_": "vdm.diffusion.frame_levels.CleanPrefix",
        "min_frames": 2,
        "max_frames": 3,
        "probability": 0.5,
    }
    others = {"_target_": "vdm.diffusion.frame_levels.IndependentFrames"}
    levels = build(modernized({"frame_levels": {**former, "others": others}})["frame_levels"], "frame_levels")

    assert levels == KnownFramesClean(FirstFrames(2, 3), 0.5, IndependentFrames())
    assert build(modernized({"_target_": former["_target_"]}), "frame_levels") == KnownFramesClean()
