import math
from pathlib import Path

import pytest
import torch
from torch import nn

from vdm.checkpoints.pieces import PieceFiles, write_pieces
from vdm.objectives.condition_dropout import ConditionDropout
from vdm.prompts import Prompts
from vdm.training.level_means import LevelMeans
from vdm.training.lr_schedules import WarmupConstant, WarmupCosine, WarmupLinear
from vdm.training.optimizers import adamw
from vdm.training.strategies.weight_slices import load_optimizer_pieces, optimizer_pieces, whole_slice


def test_cosine_schedule_follows_its_formula() -> None:
    schedule = WarmupCosine(warmup_steps=4, decay_steps=100, final_factor=0.1)
    assert [schedule(step) for step in range(3)] == pytest.approx(
        [(step + 1) / 4 * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 100)) / 2) for step in range(3)]
    )
    assert schedule(50) == pytest.approx(0.55)
    assert schedule(100) == schedule(10**6) == pytest.approx(0.1)


def test_linear_and_constant_schedules_follow_their_formulas() -> None:
    linear = WarmupLinear(warmup_steps=0, decay_steps=10, final_factor=0.0)
    assert [linear(step) for step in (0, 5, 10, 20)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    constant = WarmupConstant(warmup_steps=5)
    assert [constant(step) for step in (0, 4, 1000)] == pytest.approx([0.2, 1.0, 1.0])


def test_weight_decay_spares_biases_and_norms() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    groups = adamw(module.parameters(), lr=1e-3, weight_decay=0.1).param_groups
    decayed = [p for group in groups if group["weight_decay"] > 0 for p in group["params"]]
    assert [p.shape for p in decayed] == [torch.Size([3, 3])]
    assert sum(len(group["params"]) for group in groups) == 4


def test_means_by_level_are_weighted_and_binned() -> None:
    means = LevelMeans(num_bins=2)
    means.add(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([0.1, 0.2, 0.9]), torch.tensor([1.0, 1.0, 0.0]))
    means.add(torch.tensor([8.0]), torch.tensor([1.0]), torch.tensor([2.0]))
    assert means.named("x") == pytest.approx(
        {"x/loss": (1 + 3 + 16) / 4, "x/loss_by_level/t=0.00-0.50": 2.0, "x/loss_by_level/t=0.50-1.00": 8.0}
    )


def test_means_of_nothing_are_empty() -> None:
    assert LevelMeans(num_bins=3).named("x") == {}


def test_conditions_are_dropped_at_the_rate_asked_for_and_by_position_alone() -> None:
    size = 2000
    prompts = Prompts.of(["a"] * size, torch.zeros(size, dtype=torch.long))
    dropout = ConditionDropout({"all": 0.2, "text": 0.5})
    dropped = dropout.apply(prompts, 0, range(size))
    no_text = sum(caption == "" for caption in dropped.captions) / size
    no_label = (dropped.conditions["label"].labels < 0).float().mean().item()
    assert no_text == pytest.approx(0.2 + 0.8 * 0.5, abs=4 * math.sqrt(0.6 * 0.4 / size))
    assert no_label == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / size))
    part = dropout.apply(Prompts.of(["a"] * 10, torch.zeros(10, dtype=torch.long)), 0, range(100, 110))
    assert part.captions == dropped.captions[100:110]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_drop_out_outside_of_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="text must lie in"):
        ConditionDropout({"text": share})


def test_state_of_a_weight_that_had_done_no_step_when_it_was_saved_is_forgotten(tmp_path: Path) -> None:
    one, two = (nn.Parameter(torch.ones(3)) for _ in range(2))
    slices = {"one": whole_slice(one, True), "two": whole_slice(two, True)}
    optimizer = torch.optim.AdamW([one, two])
    one.grad = torch.ones(3)
    optimizer.step()
    write_pieces(tmp_path / "optimizer.safetensors", optimizer_pieces(slices, optimizer))
    expected = optimizer.state[one]["exp_avg"].clone()
    one.grad, two.grad = torch.full((3,), 1e9), torch.full((3,), 1e9)
    optimizer.step()

    load_optimizer_pieces(slices, optimizer, PieceFiles(tmp_path, "optimizer"))

    assert not optimizer.state[two]
    torch.testing.assert_close(optimizer.state[one]["exp_avg"], expected, rtol=0, atol=0)
