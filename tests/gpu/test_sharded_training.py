"""Each strategy on GPUs, over NCCL, gives the losses and weights of a single GPU, and leaves out the same bad steps."""

import importlib.util
from pathlib import Path

import pytest

from tests.gpu.devices import backend, number_of_devices, on
from tests.training.runs import configuration, train
from tests.training.stages import ADAMW, train_in_processes
from tests.training.test_bad_steps import assert_equal, report, spoiled
from tests.training.test_strategies import content, curve

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

PLAIN = (
    "ddp",
    "fsdp2",
    "fsdp2 blocks.recompute=all strategy.reshard_after_forward=false",
    "fsdp2 strategy.offload=true",
)
ZERO = ("deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3")
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
FAMILIES = [pytest.param(PLAIN, id="ddp-fsdp2"), pytest.param(ZERO, id="zero", marks=needs_deepspeed)]


def batches(number: int) -> tuple[str, ...]:
    """Two micro-batches in each process, the last of them of unequal size."""
    return (f"data.global_batch_size={3 * number + 1}", "data.micro_batch_size=2")


def stages(names: tuple[str, ...], device: str, number: int, *overrides: str, steps: int = 2) -> list[str]:
    """Train for so many steps under one strategy after another."""
    common = " ".join((*on(device, number), *batches(number), *overrides))
    return [
        f"{name} {steps * count} {' '.join(options)} {'' if 'offload' in whole else backend(device)} {common}"
        for count, whole in enumerate(names, start=1)
        for name, *options in [whole.split()]
    ]


@pytest.mark.parametrize("names", FAMILIES)
@pytest.mark.parametrize("wanted", ["one", "all"])
def test_run_that_changes_strategies_equals_one_on_a_single_device(
    tmp_path: Path, shards: Path, device: str, wanted: str, names: tuple[str, ...]
) -> None:
    number = number_of_devices(device, wanted)
    size = 3 * number + 1
    spoil = spoiled([(2 * count + 1) * size for count in range(len(names))])  # in each second step
    last = f"trainer.max_steps={2 * len(names)}"
    train(tmp_path / "one", configuration(shards, *ADAMW, *batches(number), spoil, last, *on(device)))
    train_in_processes(shards, tmp_path / "many", *stages(names, device, number, spoil), num_processes=number)
    for name in ("train/loss", "train/grad_norm"):
        found, expected = curve(tmp_path / "many", name), curve(tmp_path / "one", name)
        good = {step: value for step, value in expected.items() if step % 2 == 1}
        assert len(good) == len(names)
        assert {step: found[step] for step in good} == pytest.approx(good, rel=1e-4)
    assert_equal(content(tmp_path / "many"), content(tmp_path / "one"), atol=1e-5)
    bad = [2 * count for count in range(1, len(names) + 1)]
    assert [found["step"] for found in report(tmp_path / "many")] == bad
    assert [found["step"] for found in report(tmp_path / "one")] == bad


@pytest.mark.parametrize("names", FAMILIES)
@pytest.mark.parametrize("wanted", ["one", "all"])
def test_bf16_losses_of_each_strategy_are_those_of_a_single_device(
    tmp_path: Path, shards: Path, device: str, wanted: str, names: tuple[str, ...]
) -> None:
    number = number_of_devices(device, wanted)
    bf16 = "trainer.precision=bf16-mixed"
    last = f"trainer.max_steps={2 * len(names)}"
    train(tmp_path / "one", configuration(shards, *ADAMW, *batches(number), bf16, last, *on(device)))
    train_in_processes(shards, tmp_path / "many", *stages(names, device, number, bf16), num_processes=number)
    losses = curve(tmp_path / "one", "train/loss")
    assert len(losses) == 2 * len(names)
    assert curve(tmp_path / "many", "train/loss") == pytest.approx(losses, rel=2e-2)
