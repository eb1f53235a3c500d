"""Steps whose loss is not finite, or a spike, leave no trace in the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision.amp import MixedPrecision
from torch import Tensor

from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.test_strategies import content
from tests.training.zygote import Zygote
from vdm.checkpoints.history import read_history
from vdm.checkpoints.layout import checkpoint_folder
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.config import ConfigError
from vdm.training.callbacks import bad_steps
from vdm.training.callbacks.bad_steps import LeaveOutBadSteps
from vdm.training.training_run import build_training


def spoiled(positions: list[int], factor: str = "nan", times: str = "null") -> str:
    target = "tests.training.planting.SpoilLosses"
    return f"+callbacks.spoil={{_target_:{target},positions:{positions},factor:{factor},times:{times}}}".replace(
        " ", ""
    )


def report(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "bad_steps.jsonl").read_text().splitlines()]


def weights_at(run: Path, step: int) -> dict[str, Tensor]:
    checkpoint = SavedCheckpoint(checkpoint_folder(run, step))
    kinds = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
    return {f"{kind} {name}": files.whole(name) for kind, files in kinds.items() for name in files.shapes}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 0) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("fused", [True, False])
def test_step_that_is_not_finite_changes_neither_weights_nor_moments_and_its_samples_count_as_seen(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture, fused: bool
) -> None:
    each = ("save.every_steps=1", "save.keep.last=9", f"+optimizer.fused={fused}")
    config = configuration(shards, *each, spoiled([6]), "trainer.max_steps=4")
    training = train(tmp_path, config)
    assert_equal(weights_at(tmp_path, 2), weights_at(tmp_path, 1))
    assert not torch.equal(*(weights_at(tmp_path, step)["weights model.network.exit.bias"] for step in (2, 3)))
    assert all(tensor.isfinite().all() for tensor in content(tmp_path).values())
    assert training.data.position == 4 * 4
    (bad,) = report(tmp_path)
    assert (bad["step"], bad["loss"], bad["went_back_to"]) == (2, "nan", None)
    assert sorted(clip["position"] for clip in bad["clips"]) == [4, 5, 6, 7]
    assert (bad["clips"][0]["position"], bad["clips"][0]["loss"]) == (6, "nan")
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("Step 2 was bad: loss nan, gradient norm ")
    assert f"{bad['clips'][0]['key']} (position 6, loss nan)" in line


def test_nan_on_one_process_makes_all_leave_out_the_same_step_under_each_strategy(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    spoil = spoiled([6, 17, 27, 36, 47])  # one in each second step of 5 samples
    stages = [
        f"{name} {2 * number} {spoil}"
        for number, name in enumerate(("ddp", "fsdp2", *(f"deepspeed_zero{stage}" for stage in (1, 2, 3))), start=1)
    ]
    train(tmp_path / "one", configuration(shards, *ADAMW, *MICRO_BATCHES, spoil, "trainer.max_steps=10"))
    train_in_processes(shards, tmp_path / "many", *stages, zygote=zygote)
    assert_equal(content(tmp_path / "many"), content(tmp_path / "one"), atol=1e-7)
    one, many = report(tmp_path / "one"), report(tmp_path / "many")
    assert [bad["step"] for bad in many] == [bad["step"] for bad in one] == [2, 4, 6, 8, 10]
    for found, expected in zip(many, one, strict=True):
        assert [clip["key"] for clip in found["clips"]] == [clip["key"] for clip in expected["clips"]]
        assert found["clips"][0]["loss"] == "nan"


def test_spike_is_left_out_and_does_not_raise_the_mean(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bad_steps, "MEAN_STEPS", 3)
    config = configuration(shards, "bad_steps.spike_factor=5", spoiled([18, 21], factor="1000"), "trainer.max_steps=7")
    train(tmp_path, config)
    assert [bad["step"] for bad in report(tmp_path)] == [5, 6]
    early = configuration(shards, "bad_steps.spike_factor=5", spoiled([2], factor="1000"), "trainer.max_steps=2")
    train(tmp_path / "early", early)
    assert not (tmp_path / "early" / "bad_steps.jsonl").exists()  # no mean to compare with yet


def test_rollback_goes_on_from_the_latest_checkpoint_past_the_bad_samples(tmp_path: Path, shards: Path) -> None:
    rollback = ("bad_steps.policy=rollback", "save.every_steps=2", "save.keep.last=9")
    config = configuration(shards, *rollback, spoiled([17]), "trainer.max_steps=6")
    training = train(tmp_path / "run", config)
    (bad,) = report(tmp_path / "run")
    assert (bad["step"], bad["went_back_to"]) == (5, 4)
    assert training.trainer.global_step == 6
    assert training.data.position == (6 + 1) * 4
    (rollback_event,) = (event for event in read_history(tmp_path / "run") if event.event == "rollback")
    assert (rollback_event.step, rollback_event.from_step, rollback_event.position) == (4, 5, 20)
    assert (rollback_event.reason or "").startswith("step 5 was bad: loss nan")
    # The same as a run that never saw those samples: two steps from the checkpoint of step 4, from position 20 on.
    plain = configuration(shards, *rollback, "trainer.max_steps=6")
    plain["trainer"]["max_steps"] = 4
    train(tmp_path / "plain", plain)
    plain["trainer"]["max_steps"] = 6
    jump = build_training(plain, tmp_path / "plain")
    load = jump.data.load_state_dict
    jump.data.load_state_dict = lambda state: load({**state, "position": 20})  # type: ignore[method-assign]
    jump.fit(tmp_path / "plain")
    assert_equal(content(tmp_path / "run"), content(tmp_path / "plain"))


def test_rolled_back_run_that_is_interrupted_equals_one_that_is_not(tmp_path: Path, shards: Path) -> None:
    rollback = ("bad_steps.policy=rollback", "save.every_steps=2")
    config = configuration(shards, *rollback, spoiled([17]), "trainer.max_steps=8")
    train(tmp_path / "whole", config)
    config["trainer"]["max_steps"] = 6
    train(tmp_path / "parts", config)
    config["trainer"]["max_steps"] = 8
    train(tmp_path / "parts", config, resume=True)
    assert_equal(content(tmp_path / "parts"), content(tmp_path / "whole"))


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_too_many_bad_steps_in_a_row_end_training_in_one_line(tmp_path: Path, shards: Path, policy: str) -> None:
    options = (f"bad_steps.policy={policy}", "bad_steps.max_in_a_row=2", "save.every_steps=2")
    config = configuration(shards, *options, spoiled([*range(9, 40)]), "trainer.max_steps=10")
    with pytest.raises(ValueError, match=r"^bad_steps: 3 steps in a row were bad, the last with loss nan") as refused:
        train(tmp_path, config)
    assert "\n" not in str(refused.value)
    assert [bad["step"] for bad in report(tmp_path)] == ([3, 4] if policy == "skip" else [3, 3])
    assert all(tensor.isfinite().all() for tensor in content(tmp_path).values())


def test_impossible_rule_is_one_line(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ConfigError, match=r"^bad_steps\.spike_factor: 1 is not allowed: must be above 1"):
        build_training(configuration(shards, "bad_steps.spike_factor=1"), tmp_path)


def test_losses_are_compared_without_the_scale_of_fp16(tmp_path: Path, shards: Path) -> None:
    means = []
    for name, plugin in (("fp32", None), ("fp16", MixedPrecision("16-mixed", "cpu"))):
        config = configuration(shards, "trainer.max_steps=2", "data.micro_batch_size=2")
        training = build_training(config, tmp_path / name)
        if plugin is not None:  # Lightning itself takes bf16 on CPUs, which needs no scale
            training.trainer.strategy._precision_plugin = plugin
        training.fit()
        (watcher,) = (callback for callback in training.trainer.callbacks if isinstance(callback, LeaveOutBadSteps))  # type: ignore[attr-defined]
        means.append(watcher.mean_loss.item())
    assert means[1] == pytest.approx(means[0], rel=0.02)
