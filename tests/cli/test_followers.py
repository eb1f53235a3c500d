"""Followers: keys of a resumed run that take their values from keys which it may change."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.cli.conftest import Vdm
from tests.cli.recording import record
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.run_record import load_config
from vdm.cli.followers import followers_of
from vdm.cli.resume import _is_changeable, apply_resume_overrides
from vdm.cli.run_folder import register_run_folder
from vdm.config.conf_dir import conf_dir


@pytest.mark.parametrize("way", ["resume=first", "hydra.run.dir=first"])
def test_what_takes_its_value_from_a_changeable_key_follows_it_when_the_run_goes_on(vdm: Vdm, way: str) -> None:
    vdm("train", "hydra.run.dir=first", task=record)
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)
    followers = {"twice": "trainer.max_steps", "logged.every": "trainer.log_every_n_steps"}
    assert load_config(Path("first"))["follows"] == followers

    (config,) = vdm("train", way, "trainer.max_steps=99", task=record).configs

    assert (config.twice, config.logged.every) == (99, 5)
    assert load_config(Path("first"))["follows"] == followers
    assert vdm("train", way, "trainer.max_steps=7").configs[0].twice == 7


@pytest.mark.parametrize("way", ["resume=first", "hydra.run.dir=first"])
def test_value_that_the_user_gave_does_not_follow(vdm: Vdm, way: str) -> None:
    vdm("train", "hydra.run.dir=first", "twice=10", task=record)
    checkpoint_folder(Path("first"), 7).mkdir(parents=True)
    arguments = [] if way.startswith("resume") else ["twice=10"]

    assert vdm("train", way, "trainer.max_steps=99", *arguments).configs[0].twice == 10


def test_in_a_run_that_records_nothing_of_it_equal_values_follow() -> None:
    saved = {
        "trainer": {"max_steps": 10, "log_every_n_steps": 5},
        "lr_schedule": {"decay_steps": 10},
        "training": {"lr_schedule": {"decay_steps": 10}},
        "callbacks": {"metrics": {"every_steps": 2}},
    }
    composed = {**saved, "trainer": {"max_steps": 20, "log_every_n_steps": 6}}

    result = apply_resume_overrides(saved, composed, ["trainer.max_steps=20", "trainer.log_every_n_steps=6"])

    assert result["lr_schedule"] == {"decay_steps": 20}
    assert result["training"] == {"lr_schedule": {"decay_steps": 20}}
    assert result["callbacks"] == {"metrics": {"every_steps": 2}}  # was another, so the user gave it


def test_every_reference_of_conf_to_a_changeable_key_is_recorded() -> None:
    register_run_folder()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["data.path=SHARDS", "launcher=slurm", "nodes=2", "gpus_per_node=8"])

    assert followers_of(config, _is_changeable) == {
        "lr_schedule.decay_steps": "trainer.max_steps",
        "training.lr_schedule.decay_steps": "trainer.max_steps",
        "callbacks.metrics.every_steps": "trainer.log_every_n_steps",
        "launcher.nodes": "nodes",
        "launcher.gpus_per_node": "gpus_per_node",
    }


def test_references_of_any_form_are_followed_to_where_the_value_stands() -> None:
    config = OmegaConf.create(
        {
            "trainer": {"max_steps": 3, "same": "${.max_steps}"},
            "a": {"b": "${..trainer.same}", "text": "steps ${trainer.max_steps}"},
            "c": "${a}",
            "d": "${c.b}",
            "round": "${round}",
            "lost": "${nowhere}",
        }
    )

    assert followers_of(config, _is_changeable) == dict.fromkeys(
        ("trainer.same", "a.b", "c.b", "d"), "trainer.max_steps"
    )
