"""A user's conditioner and a YAML add a condition, which is trained on, dropped and sampled with by its name."""

from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge

from tests.cli.conftest import RunVdm, run_vdm
from tests.data.shard_sets import write_set
from tests.training.runs import configuration, train
from vdm import randomness
from vdm.assembly.model import VideoDiffusionModel
from vdm.cli import sample
from vdm.cli.options import sample as options
from vdm.config import ConfigError
from vdm.prompts import Prompts, TensorCondition
from vdm.training.training_run import build_training

__all__ = ["run_vdm"]  # a fixture

OWN = f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'}]"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards"), {"train": (5,), "validation": (3,)})


def own_configuration(shards: Path, *overrides: str) -> dict[str, Any]:
    return configuration(shards, OWN, "model=own_condition", *overrides)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    dropout = ("+training.condition_dropout.brightness=0.5", "training.condition_dropout.all=0")
    # The network begins with layers of zeros, so what comes before them begins to train after some steps.
    config = own_configuration(shards, *dropout, "trainer.max_steps=4", "optimizer.weight_decay=0")
    before = build_training(config, folder).module.model.conditioner.embed.weight.clone()
    trained = train(folder, config)
    assert not torch.equal(trained.module.model.conditioner.embed.weight, before)
    return folder


def test_it_is_left_out_in_training_by_its_name(shards: Path, tmp_path: Path) -> None:
    dropout = ("+training.condition_dropout.brightness=0.5", "training.condition_dropout.all=0.2")
    module = build_training(own_configuration(shards, *dropout), tmp_path).module
    prompts = Prompts({"brightness": TensorCondition.given(torch.rand(50, 1))})
    dropped = module.condition_dropout.apply(prompts, 3, range(50))

    everything, alone = (randomness.uniform(3, f"drop {name}", range(50)) for name in ("all", "brightness"))
    assert torch.equal(dropped.conditions["brightness"].present, (everything >= 0.2) & (alone >= 0.5))


def test_one_that_the_conditioner_does_not_take_is_refused(shards: Path, tmp_path: Path) -> None:
    config = own_configuration(shards, "+training.condition_dropout.sharpness=0.5")
    message = r"^training\.condition_dropout\.sharpness=0\.5: the model has no such condition; it has: brightness$"
    with pytest.raises(ConfigError, match=message):
        build_training(config, tmp_path)


def test_videos_are_made_with_it_and_without(run: Path) -> None:
    model = VideoDiffusionModel.from_checkpoint(run, allow_own_code=True)
    noise = torch.randn(1, 3, 4, 16, 32, generator=torch.Generator().manual_seed(0))
    asked = model.prompts("").with_conditions(brightness=TensorCondition.given(torch.tensor([[0.9]])))
    given, dropped, never = (
        model.sample(noise, prompts) for prompts in (asked, asked.without_conditions(), model.prompts(""))
    )

    assert torch.equal(dropped, never)
    assert not torch.equal(given, never)


def test_its_options_are_those_of_the_command_line(
    run: Path,
    run_vdm: RunVdm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sample, "generate", lambda model, *_, **more: told.append(model.conditioner.options) or _stop())
    command = ("sample", f"checkpoint={run}", "allow_own_code=true", f"output={tmp_path}", "device=cpu")
    with pytest.raises(_StopError):
        run_vdm(*command, "emphasis=2")
    assert [options.emphasis for options in told] == [2]
    for wrong, message in (
        ("emphasis=5", "emphasis=5: must be a number, at least 0 and at most 4, or null"),
        ("emfasis=2", f"emfasis: the model of {run} has no such option: did you mean 'emphasis'?; it has: emphasis"),
    ):
        code, err = run_vdm(*command, wrong)
        assert (code, err) == (2, f"{message}\n")


def test_option_named_like_one_of_the_command_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"seed": Annotated[int, Ge(0)], "emphasis": float}
    monkeypatch.setattr(options, "options_of_model", lambda *_: own)
    with pytest.raises(
        ConfigError, match=r"^model\.conditioner: its option seed has the name of an option of the comm"
    ):
        options.SampleOptions.completed({"checkpoint": str(tmp_path)})


class _StopError(Exception):
    pass


def _stop() -> None:
    raise _StopError
