"""Figures that training logs, against what is known of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.runs import SGD, configuration, train
from vdm.checkpoints.metrics_file import read_metrics
from vdm.training.callbacks.updates import LogUpdates
from vdm.training.step_flops import StepFlops, peak_flops


def last(run: Path) -> dict[str, float]:
    return {name: float(one.values[-1]) for name, one in read_metrics(run).items()}


def test_gradients_of_parts_add_up_and_updates_are_those_of_plain_descent(tmp_path: Path, shards: Path) -> None:
    options = (*SGD, "trainer.max_steps=1", "lr_schedule.warmup_steps=0", "trainer.gradient_clip_val=0")
    config = configuration(shards, *options, "optimizer.lr=0.5")
    rate = train(tmp_path, config).module.lr_schedule(0) * 0.5
    found = last(tmp_path)
    parts = {name: value for name, value in found.items() if name.startswith("train/grad_norm/")}
    assert np.sqrt(sum(value**2 for value in parts.values())) == pytest.approx(found["train/grad_norm"], rel=1e-5)
    weights = build_weights(shards, config)
    # Of one step, the update of a part is the rate times its gradient; "exit" begins at zero, and has no ratio.
    for part in parts.keys() - {"train/grad_norm/exit"}:
        name = part.rpartition("/")[2]
        assert found[f"train/update_ratio/{name}"] == pytest.approx(rate * parts[part] / weights[name], rel=1e-3)
    assert "train/update_ratio/exit" not in found


def build_weights(shards: Path, config: dict[str, object]) -> dict[str, float]:
    """Return the norm of the initial weights of each part."""
    from vdm.training.training_run import build_training
    from vdm.training.weight_groups import weight_groups

    module = build_training(config, Path("unused")).module
    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    squares: dict[str, float] = {}
    for name, group in weight_groups(weights).items():
        squares[group] = squares.get(group, 0.0) + float(weights[name].detach().double().square().sum())
    return {group: square**0.5 for group, square in squares.items()}


def test_operations_of_a_step_are_those_of_its_products() -> None:
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False))
    forward = 2 * 5 * (8 * 16 + 16 * 4)
    for trained, factor in ((True, 3.0), (False, 2 + 64 / 192)):
        model[0].requires_grad_(trained)
        flops = StepFlops(model)
        for _ in range(2):
            with flops.counting((5, 8)):
                model(torch.ones(5, 8))
        assert flops.total == pytest.approx(2 * factor * forward)


def test_peak_is_a_rate_that_the_machine_can_have() -> None:
    assert 1e8 < peak_flops(torch.device("cpu"), torch.float32) < 1e14


def test_shares_of_time_add_up_to_less_than_all_of_it(tmp_path: Path, shards: Path) -> None:
    train(tmp_path, configuration(shards, "validate.every_steps=1", "save.every_steps=1"))
    series = read_metrics(tmp_path)
    shares = {name: one.values for name, one in series.items() if name.endswith("_fraction") and "peak" not in name}
    assert shares.keys() >= {
        "perf/data_wait_fraction",
        "perf/checkpoint_wait_fraction",
        "perf/validation_fraction",
    }
    assert sum(values[-1] for values in shares.values()) <= 1
    assert shares["perf/validation_fraction"][-1] > 0
    assert shares["perf/checkpoint_wait_fraction"][-1] > 0
    assert series["data/epoch"].values[-1] == pytest.approx(16 / 11)
    weights = series["perf/memory_gib/weights"].values[-1]
    assert series["perf/memory_gib/optimizer"].values[-1] == pytest.approx(2 * weights, rel=0.01)  # AdamW's moments
    assert series["perf/memory_gib/ema"].values[-1] == pytest.approx(weights, rel=0.01)


def test_interval_of_updates_is_at_least_one_step() -> None:
    with pytest.raises(ValueError, match="every_steps must be at least 1, but is 0"):
        LogUpdates(0)
