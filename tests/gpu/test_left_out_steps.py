"""Bad steps are left out on the device: fused optimizers read the decision there."""

from pathlib import Path

import pytest
import torch

from tests.gpu.devices import on
from tests.training.runs import configuration, train
from tests.training.test_bad_steps import assert_equal, report, spoiled, weights_at
from tests.training.test_strategies import content
from vdm.training.training_run import build_training

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

EACH = ("save.every_steps=1", "save.keep.last=9")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("fused", [True, False])
def test_step_that_is_not_finite_changes_neither_weights_nor_moments(
    tmp_path: Path, shards: Path, device: str, fused: bool, precision: str
) -> None:
    options = (*EACH, f"+optimizer.fused={fused}", f"trainer.precision={precision}", "trainer.max_steps=3")
    train(tmp_path, configuration(shards, *options, spoiled([6]), *on(device)))
    assert_equal(weights_at(tmp_path, 2), weights_at(tmp_path, 1))
    assert not torch.equal(*(weights_at(tmp_path, step)["weights model.network.exit.bias"] for step in (2, 3)))
    assert all(tensor.isfinite().all() for tensor in content(tmp_path).values())
    (bad,) = report(tmp_path)
    assert (bad["step"], bad["clips"][0]["position"], bad["clips"][0]["loss"]) == (2, 6, "nan")


def test_decision_of_a_fused_optimizer_stays_on_the_device(tmp_path: Path, shards: Path, device: str) -> None:
    training = build_training(configuration(shards, "trainer.max_steps=2", *on(device)), tmp_path)
    training.fit()
    found_inf = training.strategy.base_optimizer.found_inf  # type: ignore[attr-defined]  # set by the strategy, for fused kernels
    assert (found_inf.device.type, found_inf.item()) == (device, 0)


def test_rollback_goes_on_from_a_checkpoint_in_mid_training(tmp_path: Path, shards: Path, device: str) -> None:
    options = ("bad_steps.policy=rollback", "save.every_steps=2", "trainer.max_steps=6")
    training = train(tmp_path, configuration(shards, *options, spoiled([17]), *on(device)))
    (bad,) = report(tmp_path)
    assert (bad["step"], bad["went_back_to"]) == (5, 4)
    assert (training.trainer.global_step, training.data.position) == (6, (6 + 1) * 4)
    assert all(tensor.isfinite().all() for tensor in content(tmp_path).values())
