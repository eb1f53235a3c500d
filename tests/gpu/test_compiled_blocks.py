"""Compiled blocks give the losses of others on a GPU, alone and sharded."""

from pathlib import Path

import pytest

from tests.gpu.devices import backend, on
from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.test_bad_steps import assert_equal
from tests.training.test_compile import SMALL
from tests.training.test_strategies import content, curve

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


# Inductor's kernels keep in fp32 what others round to bf16 between two operations.
@pytest.mark.parametrize(("precision", "rel"), [("32-true", 1e-4), ("bf16-mixed", 2e-2)])
def test_compiled_training_is_the_same_training(
    tmp_path: Path, shards: Path, device: str, precision: str, rel: float
) -> None:
    options = (*SMALL, f"trainer.precision={precision}", *on(device))
    train(tmp_path / "plain", configuration(shards, *ADAMW, *MICRO_BATCHES, *options, "trainer.max_steps=4"))
    compiled = " ".join(("blocks.compile=true", *options))
    # In a process whose functions don't have their annotations checked, which would be compiled along with them.
    stages = (f"auto 2 blocks.recompute=all {compiled}", f"fsdp2 4 {backend(device)} {compiled}")
    train_in_processes(shards, tmp_path / "compiled", *stages, num_processes=1)

    losses = curve(tmp_path / "plain", "train/loss")
    assert curve(tmp_path / "compiled", "train/loss") == pytest.approx(losses, rel=rel)
    if precision == "32-true":
        assert_equal(content(tmp_path / "compiled"), content(tmp_path / "plain"), atol=1e-5)
