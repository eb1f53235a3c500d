"""Two experts in one run: which trains when, and that the other one stays as it is under every strategy."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.training import chaos
from tests.training.experts import TWO_EXPERTS, of_experts
from tests.training.runs import tiny_without, train
from tests.training.saved import content, curve, each_pair
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.zygote import Zygote
from vdm.checkpoints.layout import checkpoints_of
from vdm.models.experts import EXPERTS

OPTIONS = (*ADAMW, *MICRO_BATCHES, "optimizer.weight_decay=0.1", "save.every_steps=1", "save.keep.last=100")
STRATEGIES = ("ddp", "fsdp2", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3")
OFFLOAD = {"deepspeed_zero2": "strategy.offload_optimizer=true"}


def stages_of(strategies: tuple[str, ...], first: int) -> list[str]:
    """Return stages of two steps each, in which both experts train, from step ``first`` on."""
    overrides = " ".join([*TWO_EXPERTS, *OPTIONS[len(ADAMW) + len(MICRO_BATCHES) :]])
    return [
        f"{name} {first + 2 * number} {overrides} {OFFLOAD.get(name, '')}"
        for number, name in enumerate(strategies, start=1)
    ]


def check_experts(run: Path) -> list[str]:
    """Check that each step changed weights and state of one expert, and nothing of the other; return the former."""
    saved = [content(run, folder) for folder in sorted(checkpoints_of(run))]
    in_use: list[str] = []
    for before, after in pairwise(saved):
        changed = {
            expert: {name for name in after if f".{expert}." in name and not same(before.get(name), after[name])}
            for expert in EXPERTS
        }
        (expert,) = (expert for expert in EXPERTS if changed[expert])
        counts = {name for name in after if f".{expert}." in name and name.startswith("optimizer step/")}
        assert counts <= changed[expert]
        in_use.append(expert)
    return in_use


def same(before: torch.Tensor | None, after: torch.Tensor) -> bool:
    return before is not None and torch.equal(before, after)


def test_chain_of_strategies_equals_one_process_and_leaves_the_idle_expert_alone(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    chain = (*STRATEGIES, "ddp")
    num_steps = 2 + 2 * len(chain)
    config = of_experts(shards, *OPTIONS, "validate.every_steps=4", f"trainer.max_steps={num_steps}")
    train(tmp_path / "one", config)
    run = tmp_path / "many"
    train(run, {**config, "trainer": {**config["trainer"], "max_steps": 2}})
    train_in_processes(
        shards, run, *(f"{stage} validate.every_steps=4" for stage in stages_of(chain, 2)), zygote=zygote
    )

    expected, found = content(tmp_path / "one"), content(run)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-7, msg=name)
    for name in ("train/loss", "train/grad_norm", "val/loss", *(f"val/loss_by_expert/{expert}" for expert in EXPERTS)):
        assert curve(run, name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-4)
    order = check_experts(tmp_path / "one")
    assert check_experts(run) == order
    assert all(set(order[number : number + 2]) == set(EXPERTS) for number in range(1, num_steps - 2, 2))


@pytest.mark.chaos
def test_each_strategy_goes_on_from_each_other(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    walk = tuple(each_pair(STRATEGIES))
    num_steps = 2 + 2 * len(walk)
    config = of_experts(shards, *OPTIONS, f"trainer.max_steps={num_steps}")
    train(tmp_path / "one", config)
    run = tmp_path / "many"
    train(run, {**config, "trainer": {**config["trainer"], "max_steps": 2}})
    train_in_processes(shards, run, *stages_of(walk, 2), zygote=zygote)
    found = content(run)
    for name, tensor in content(tmp_path / "one").items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert check_experts(run) == check_experts(tmp_path / "one")


def test_killed_and_resumed_run_equals_one_left_alone(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    options = (*tiny_without("model.network"), *chaos.OPTIONS, *TWO_EXPERTS)
    case = chaos.Case("ddp", 2, shards, tmp_path, zygote, random.Random(5), options)
    alone = case.run_alone()
    run, num_kills = case.run_under_fire("killed", 2)
    assert num_kills > 0
    chaos.assert_same_model(run, alone)
