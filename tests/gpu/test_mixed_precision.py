"""Training on a GPU has the curve of training on a CPU, in fp32 and, as near as their digits allow, in bf16 and fp16.

Noise, noise levels and initial weights are drawn on the CPU, so that the same losses are expected on both.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision.amp import MixedPrecision

from tests.gpu.devices import on
from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES
from tests.training.test_bad_steps import assert_equal, report, spoiled, weights_at
from tests.training.test_strategies import content, curve
from vdm.training.training_run import TrainingRun, build_training

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

STEPS = "trainer.max_steps=8"


def train_fp16(run: Path, config: dict[str, Any], device: str) -> TrainingRun:
    """Train in fp16 with a loss scaler, which Lightning does not offer on CPUs."""
    training = build_training(config, run)
    if device == "cpu":
        training.trainer.strategy._precision_plugin = MixedPrecision("16-mixed", "cpu")
    training.fit()
    return training


def scale_of(training: TrainingRun) -> float:
    return training.trainer.precision_plugin.scaler.get_scale()  # type: ignore[attr-defined]  # that of 16-mixed has one


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run in fp32 on the CPU."""
    run = tmp_path_factory.mktemp("cpu")
    train(run, configuration(shards, *ADAMW, *MICRO_BATCHES, STEPS))
    return run


def test_fp32_run_is_that_of_the_cpu(tmp_path: Path, shards: Path, device: str, on_cpu: Path) -> None:
    train(tmp_path, configuration(shards, *ADAMW, *MICRO_BATCHES, STEPS, *on(device)))
    assert curve(tmp_path, "train/loss") == pytest.approx(curve(on_cpu, "train/loss"), rel=1e-4)
    assert curve(tmp_path, "train/grad_norm") == pytest.approx(curve(on_cpu, "train/grad_norm"), rel=1e-3)
    assert_equal(content(tmp_path), content(on_cpu), atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_bf16_run_has_the_losses_of_fp32_and_moves_fp32_weights(
    tmp_path: Path, shards: Path, device: str, on_cpu: Path, fused: bool
) -> None:
    options = (STEPS, "trainer.precision=bf16-mixed", f"+optimizer.fused={fused}")
    training = build_training(configuration(shards, *ADAMW, *MICRO_BATCHES, *options, *on(device)), tmp_path)
    before = {name: p.detach().clone() for name, p in training.module.named_parameters()}
    training.fit()
    assert curve(tmp_path, "train/loss") == pytest.approx(curve(on_cpu, "train/loss"), rel=2e-2)
    for name, parameter in training.module.named_parameters():
        assert parameter.dtype == torch.float32
        if parameter.ndim > 1:  # norms begin at 1, beside which so small a step is rounded away
            assert not torch.equal(parameter.detach().cpu(), before[name]), name


def test_fp16_run_has_the_losses_of_fp32(tmp_path: Path, shards: Path, device: str, on_cpu: Path) -> None:
    options = (STEPS, "trainer.precision=16-mixed")
    training = train_fp16(tmp_path, configuration(shards, *ADAMW, *MICRO_BATCHES, *options, *on(device)), device)
    assert curve(tmp_path, "train/loss") == pytest.approx(curve(on_cpu, "train/loss"), rel=2e-2)
    assert all(tensor.isfinite().all() for tensor in content(tmp_path).values())
    assert scale_of(training) > 1


@pytest.mark.parametrize("fused", [True, False])
def test_step_that_overflows_in_fp16_is_left_out_and_halves_the_scale(
    tmp_path: Path, shards: Path, device: str, fused: bool
) -> None:
    each = ("save.every_steps=1", "save.keep.last=9", f"+optimizer.fused={fused}", "trainer.max_steps=3")
    overflow = spoiled([6], factor="1e30")  # finite as a loss in fp32; its gradient is not in fp16
    config = configuration(shards, *each, overflow, "trainer.precision=16-mixed", *on(device))
    scale = scale_of(train_fp16(tmp_path, config, device))
    assert_equal(weights_at(tmp_path, 2), weights_at(tmp_path, 1))
    assert not torch.equal(*(weights_at(tmp_path, step)["weights model.network.exit.bias"] for step in (2, 3)))
    assert scale == 2**15
    assert not (tmp_path / "bad_steps.jsonl").exists()  # looking for the largest scale is ordinary


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_loss_falls_on_one_batch(tmp_path: Path, shards: Path, device: str, precision: str) -> None:
    options = ("data.overfit_one_batch=true", "optimizer.lr=1e-2", "trainer.max_steps=40")
    config = configuration(shards, *options, f"trainer.precision={precision}", *on(device))
    train_fp16(tmp_path, config, device) if precision == "16-mixed" else train(tmp_path, config)
    losses = list(curve(tmp_path, "train/loss").values())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert not (tmp_path / "bad_steps.jsonl").exists()


def test_nan_under_the_scaler_of_fp16_is_a_bad_step(tmp_path: Path, shards: Path, device: str) -> None:
    each = ("save.every_steps=1", "save.keep.last=9", "trainer.max_steps=3", "trainer.precision=16-mixed")
    train_fp16(tmp_path, configuration(shards, *each, spoiled([6]), *on(device)), device)
    assert_equal(weights_at(tmp_path, 2), weights_at(tmp_path, 1))
    assert [bad["step"] for bad in report(tmp_path)] == [2]
