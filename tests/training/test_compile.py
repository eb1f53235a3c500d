"""Compiled blocks give what others give, under strategies that take hold of blocks in different ways."""

from pathlib import Path

import pytest
import torch

from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.zygote import Zygote
from vdm.checkpoints.weights import saved_weights

SMALL = (
    "model.network.channels=[16]",
    "model.network.num_blocks=1",
    "model.network.attention_levels=[]",
    "model.network.temporal_levels=[0]",
)
"""Four blocks: compiling takes a second for each of their layers."""


def test_compiled_training_is_the_same_training(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    train(tmp_path / "plain", configuration(shards, *ADAMW, *MICRO_BATCHES, *SMALL, "trainer.max_steps=2"))
    stage = ("auto 2", *SMALL, "blocks.compile=true", "blocks.recompute=all")
    # In a process whose functions don't have their annotations checked, which would be compiled along with them.
    train_in_processes(shards, tmp_path / "compiled", " ".join(stage), num_processes=1, zygote=zygote)

    assert_same_weights(tmp_path / "compiled", tmp_path / "plain")


@pytest.mark.chaos
@pytest.mark.parametrize("recompute", ["none", "all"])
def test_compiled_training_is_the_same_under_every_strategy(
    tmp_path: Path, shards: Path, zygote: Zygote, recompute: str
) -> None:
    options = ("blocks.compile=true", f"blocks.recompute={recompute}")
    train(tmp_path / "one", configuration(shards, *ADAMW, *MICRO_BATCHES, "trainer.max_steps=3"))
    stages = ("ddp 1", "fsdp2 2", "deepspeed_zero2 3")
    train_in_processes(shards, tmp_path / "compiled", *(" ".join((stage, *options)) for stage in stages), zygote=zygote)

    assert_same_weights(tmp_path / "compiled", tmp_path / "one")


def assert_same_weights(found: Path, expected: Path) -> None:
    weights = saved_weights(found, ema=False)
    for name, tensor in saved_weights(expected, ema=False).items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6, msg=name)
