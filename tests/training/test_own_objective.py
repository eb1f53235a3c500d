"""An objective from outside the package trains under every strategy, with one optimizer and with two."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.objectives.own import NearReference
from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.test_strategies import content, curve
from tests.training.zygote import Zygote
from vdm.assembly.model import VideoDiffusionModel
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.run_config import RunConfig
from vdm.checkpoints.snapshot import save_weights
from vdm.checkpoints.weights import load_weights
from vdm.config import ConfigError
from vdm.models.lora import merged
from vdm.objectives.load import load_objective
from vdm.training.planning.step import Clips, measure_step
from vdm.training.training_run import build_training
from vdm.types import ClipSize

ONE = ("objective._target_=tests.objectives.own.NearReference", "+objective.weight=0.5")
TWO = (*ONE, "+objective.optimizer={_target_:torch.optim.SGD,_partial_:true,lr:0.05,momentum:0.9}")
VALIDATION = "validate.every_steps=2"


@pytest.mark.parametrize(
    ("objective", "stages"),
    [(ONE, ("ddp 2", "fsdp2 4", "deepspeed_zero2 5")), (TWO, ("ddp 2", "fsdp2 4"))],
    ids=["one optimizer", "two"],
)
def test_runs_in_two_processes_and_resumed_equal_one_process(
    tmp_path: Path, shards: Path, zygote: Zygote, objective: tuple[str, ...], stages: tuple[str, ...]
) -> None:
    config = configuration(shards, *ADAMW, *MICRO_BATCHES, VALIDATION, *objective, "trainer.max_steps=6")
    train(tmp_path / "one", config)
    run = tmp_path / "many"
    train_in_processes(shards, run, *(" ".join((stage, VALIDATION, *objective)) for stage in stages), zygote=zygote)
    train(run, config, resume=True)

    expected, found = content(tmp_path / "one"), content(run)
    assert expected.keys() == found.keys()
    assert any("optimizer" in name and "objective.foretell" in name for name in expected)
    assert not any("optimizer" in name and "objective.reference" in name for name in expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=name)
    for name in ("train/loss", "train/distance", "train/foretold", "val/loss", "val/distance", "train/grad_norm"):
        assert curve(run, name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-4, abs=1e-7)
    # The reference is the model that training started from, to which the distance grows from 0.
    distances = curve(tmp_path / "one", "train/distance")
    assert distances[1] == 0 < distances[6]


def test_each_network_follows_its_own_optimizer(tmp_path: Path, shards: Path) -> None:
    still = tuple(override.replace("lr:0.05", "lr:0.0") for override in TWO)
    start = build_training(configuration(shards, *still), tmp_path / "start").module
    module = train(tmp_path / "run", configuration(shards, *still)).module
    assert isinstance(module.objective, NearReference)
    assert isinstance(start.objective, NearReference)
    for weight, before in zip(
        module.objective.foretell.parameters(), start.objective.foretell.parameters(), strict=True
    ):
        assert torch.equal(weight, before)
    for weight, before in zip(module.objective.reference.parameters(), start.model.parameters(), strict=True):
        assert torch.equal(weight, before)
    assert not torch.equal(next(module.model.network.parameters()), next(start.model.network.parameters()))


def test_a_run_is_sampled_and_exported_without_what_its_objective_brought(tmp_path: Path, shards: Path) -> None:
    trained = train(tmp_path / "run", configuration(shards, *ONE, "trainer.max_steps=1")).module.model
    names = {name.removeprefix("model.") for name in load_weights(latest_checkpoint(tmp_path / "run"))}
    assert names == set(trained.state_dict())
    model = VideoDiffusionModel.from_checkpoint(
        tmp_path / "run", ema=False
    )  # the objective's code is not needed, and not run
    for name, weight in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


def test_evaluation_gets_the_objective_as_it_was_saved(tmp_path: Path, shards: Path) -> None:
    trained = train(tmp_path / "run", configuration(shards, *TWO, "trainer.max_steps=2")).module.objective
    assert isinstance(trained, NearReference)
    checkpoint = latest_checkpoint(tmp_path / "run")
    run = RunConfig.read(checkpoint, allow_own_code=True)
    loaded = load_objective(run, checkpoint, VideoDiffusionModel.from_checkpoint(tmp_path / "run"), ema=False)
    assert isinstance(loaded, NearReference)
    assert not loaded.training
    for name, weight in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    with pytest.raises(
        ConfigError, match=r"objective\._target_: 'tests.*' is not allowed: .*; allow_own_code=true allows code"
    ):
        load_objective(RunConfig.read(checkpoint), checkpoint, VideoDiffusionModel.from_checkpoint(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"objective: dict is not an objective"):
        load_objective(replace(run, objective={}), checkpoint, VideoDiffusionModel.from_checkpoint(tmp_path / "run"))


def test_evaluation_gets_a_copy_of_a_model_with_lora_and_none_of_a_guide(tmp_path: Path, shards: Path) -> None:
    lora = ("tune=lora", "tune.rank=2", "trainer.max_steps=1")
    trained = train(tmp_path / "run", configuration(shards, *ONE, *lora)).module.objective
    assert isinstance(trained, NearReference)
    checkpoint = latest_checkpoint(tmp_path / "run")
    run, model = RunConfig.read(checkpoint, allow_own_code=True), VideoDiffusionModel.from_checkpoint(checkpoint)
    guide = model.autoguidance_model = VideoDiffusionModel.from_checkpoint(checkpoint)
    loaded = load_objective(run, checkpoint, model, ema=False)

    assert isinstance(loaded, NearReference)
    assert model.autoguidance_model is guide
    for name, weight in merged(trained.state_dict()).items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_evaluation_says_where_the_weights_of_an_objective_were_left_out(tmp_path: Path, shards: Path) -> None:
    train(tmp_path / "run", configuration(shards, *ONE, "trainer.max_steps=1"))
    run = RunConfig.read(tmp_path / "run", allow_own_code=True)
    save_weights(tmp_path / "without", load_weights(latest_checkpoint(tmp_path / "run")))
    with pytest.raises(ValueError, match=r"without: objective: its modules have no weights here, since vdm ema"):
        load_objective(run, tmp_path / "without", VideoDiffusionModel.from_checkpoint(tmp_path / "run"))


def test_plan_counts_what_an_objective_brings(shards: Path) -> None:
    clips = Clips(1, ClipSize(num_frames=2, height=16, width=16))
    plain = measure_step(configuration(shards), clips)
    one, two = (measure_step(configuration(shards, *options), clips) for options in (ONE, TWO))
    foretell = (1 + 1) * 8 + (8 + 1)
    assert one.num_trained == two.num_trained == plain.num_trained + foretell
    assert one.num_frozen == plain.num_frozen + plain.num_trained
    # AdamW keeps two numbers a weight, gradient descent with momentum one.
    assert one.optimizer_bytes - two.optimizer_bytes >= 4 * foretell
    assert one.flops > plain.flops


def test_second_optimizer_under_deepspeed_is_refused(tmp_path: Path, shards: Path) -> None:
    message = (
        r"^objective: NearReference trains a second network with an optimizer of its own, and DeepSpeed allows one"
    )
    with pytest.raises(ConfigError, match=message):
        build_training(configuration(shards, *TWO, "strategy=deepspeed_zero2"), tmp_path)
