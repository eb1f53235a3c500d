"""Figures that training logs, against what is known of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.networks import random_input, randomized
from tests.models.svd.peers import Inputs, Sizes, our_unet
from tests.training.runs import SGD, configuration, train
from vdm.checkpoints.metrics_file import read_metrics
from vdm.models.dit.transformer import SpaceTimeTransformer
from vdm.models.space_time_unet import SpaceTimeUNet
from vdm.training import weight_updates
from vdm.training.callbacks.metrics import LogMetrics
from vdm.training.planning.step import flop_counter
from vdm.training.step_flops import StepFlops, peak_flops
from vdm.types import ClipBatch, Conditioning


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


def batch() -> ClipBatch:
    """A micro-batch of 5 clips of one frame of 8 pixels."""
    ones = torch.ones(5)
    video = torch.ones(5, 3, 1, 1, 8, dtype=torch.uint8)
    return ClipBatch(video, ("",) * 5, -ones.long(), ones.long(), ones, ("",) * 5, ones)


@pytest.mark.parametrize(("frozen", "backward"), [((), 8 * 16 + 2 * 16 * 4), ((0,), 16 * 4), ((1,), 8 * 16 + 16 * 4)])
def test_operations_of_a_step_are_those_of_its_products(frozen: tuple[int, ...], backward: int) -> None:
    # Each layer whose weights are trained has their gradient; each with trained ones before it that of its input.
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False))
    for index in frozen:
        model[index].requires_grad_(False)
    flops = StepFlops(model)
    for _ in range(2):
        with flops.counting(batch()):
            loss = model(torch.ones(5, 8)).sum()
        loss.backward()
    assert flops.total == 2 * 2 * 5 * (8 * 16 + 16 * 4 + backward)


def networks() -> dict[str, Callable[[], Tensor]]:
    """Return calls of networks, with operations whose backward pass is written by hand."""
    clip, text, c_noise = random_input("x", 2, 4, 3, 16, 16), random_input("text", 2, 5, 8), torch.tensor([0.2, 0.7])
    unet = randomized(SpaceTimeUNet([16, 32], 4, num_blocks=1, attention_levels=[0, 1], head_channels=8))
    torch.manual_seed(0)
    inputs, svd = Inputs.random(2, 3), our_unet(Sizes())
    transformer = randomized(SpaceTimeTransformer(2, 2, 12, 48, 4, text_channels=8))
    return {
        "unet": lambda: unet(clip, c_noise, Conditioning()),
        "svd": lambda: inputs.of_ours(svd),
        "dit": lambda: transformer(clip, c_noise, Conditioning(text=text)),
    }


@pytest.mark.parametrize("name", ["unet", "svd", "dit"])
def test_operations_of_a_network_are_those_of_its_passes(name: str) -> None:
    forward = networks()[name]
    flops = StepFlops(nn.Identity())
    with flops.counting(batch()):
        loss = forward().square().mean()
    loss.backward()
    with flop_counter() as counter:
        forward().square().mean().backward()
    # Scores of attention that are computed again count in the second figure only.
    assert flops.total == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_counting_leaves_compiled_blocks_compiled() -> None:
    class Block(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    model = nn.Sequential(Block(8, 8))
    calls = list[int]()

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        calls.append(1)
        return graph.forward

    model[0].compile(backend=backend)
    flops = StepFlops(model)
    with flops.counting(batch()):
        model(torch.ones(5, 8))
    assert calls
    assert flops.total is None


def test_estimate_from_some_elements_is_that_of_all(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(shards, "trainer.max_steps=2")
    train(tmp_path / "all", config)
    monkeypatch.setattr(weight_updates, "MAX_ELEMENTS", 100)
    train(tmp_path / "some", config)
    every, some = last(tmp_path / "all"), last(tmp_path / "some")
    ratios = [name for name in every if name.startswith("train/update_ratio/") and every[name] > 1e-4]
    assert len(ratios) > 5
    for name in ratios:
        assert some[name] == pytest.approx(every[name], rel=0.5), name


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


def test_interval_of_figures_is_at_least_one_step() -> None:
    with pytest.raises(ValueError, match="every_steps must be at least 1, but is 0"):
        LogMetrics(0)
