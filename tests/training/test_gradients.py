"""The gradient of a step does not depend on how its clips are spread over micro-batches and processes."""

from pathlib import Path

import pytest
import torch

from tests.training.runs import SGD, TINY, configuration, train
from tests.training.zygote import Zygote
from vdm.checkpoints.run_record import load_config
from vdm.checkpoints.weights import load_weights

ONE_STEP = (*SGD, "optimizer.lr=1", "lr_schedule.warmup_steps=0", "trainer.max_steps=1", "data.global_batch_size=5")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run, ema=False)


def assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> dict[str, torch.Tensor]:
    """Weights after one step in which one process sees all five clips at once."""
    run = tmp_path_factory.mktemp("whole")
    config = configuration(shards, *ONE_STEP, "data.micro_batch_size=5")
    before = {name: weight.clone() for name, weight in train(run, config).module.ema.first.items()}
    after = weights_of(run)
    assert any((after[name] != before[name]).any() for name in before)
    return after


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_micro_batches_of_a_step_give_the_gradient_of_the_whole(
    tmp_path: Path, shards: Path, expected: dict[str, torch.Tensor], micro_batch_size: int
) -> None:
    train(tmp_path, configuration(shards, *ONE_STEP, f"data.micro_batch_size={micro_batch_size}"))
    assert_same_weights(weights_of(tmp_path), expected, 1e-6)


@pytest.mark.parametrize("micro_batch_size", [5, 1])
def test_two_processes_give_the_gradient_of_one(
    tmp_path: Path, shards: Path, zygote: Zygote, expected: dict[str, torch.Tensor], micro_batch_size: int
) -> None:
    overrides = [*TINY, *ONE_STEP, f"data.path={shards}", f"data.micro_batch_size={micro_batch_size}"]
    overrides += ["strategy=ddp", "strategy.process_group_backend=gloo", "trainer.devices=2"]
    pids = zygote.start_ranks(["train", *overrides, f"hydra.run.dir={tmp_path / 'run'}"], 2, tmp_path / "out.log")
    codes = zygote.wait(pids, timeout=300)
    log = (tmp_path / "out.0.log").read_text()
    assert codes == [0, 0], log
    assert "on 2 process" in log
    assert_same_weights(weights_of(tmp_path / "run"), expected, 1e-6)
    assert load_config(tmp_path / "run")["clip"]["num_frames"] == 4
