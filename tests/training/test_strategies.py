"""Each strategy gives the losses and weights of one process, and goes on from what any other saved."""

import importlib.util
import logging
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import configuration, train
from tests.training.saved import content, curve, each_pair
from tests.training.stages import ADAMW, MICRO_BATCHES, train_in_processes
from tests.training.zygote import Zygote
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.layout import ema_snapshots_of
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.config import ConfigError
from vdm.training.devices import Devices
from vdm.training.strategies.auto import auto
from vdm.training.strategies.ddp import DataParallel
from vdm.training.strategies.deepspeed import DeepSpeedZeRO
from vdm.training.strategies.fsdp2 import FSDP2
from vdm.training.strategies.single import SingleDevice
from vdm.training.training_run import build_training

SAMPLES = "callbacks.samples={_target_:vdm.training.callbacks.samples.SampleVideos,every_steps:1,num_videos:2}"
VALIDATION = "validate.every_steps=1"
EMAS = "averages=post_hoc averages.half_lives=[20,40] callbacks.averages.every_steps=2 callbacks.averages.dtype=fp32"
STAGES = (
    "ddp 2 blocks.recompute=all",
    f"fsdp2 3 blocks.recompute=[0] {SAMPLES}",
    "deepspeed_zero1 4",
    "deepspeed_zero2 5 strategy.offload_optimizer=true",
    "fsdp2 6 strategy.offload=true strategy.replicate=nodes",
    f"deepspeed_zero3 7 blocks.recompute=all {SAMPLES}",
    "fsdp2 8",
    "deepspeed_zero1 9",
)


def test_each_strategy_knows_its_device_and_samples_in_the_precision_of_training(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    options = f"trainer.precision=bf16-mixed {SAMPLES} +callbacks.forget._target_=tests.training.planting.ForgetDevice"
    strategies = ("ddp", "fsdp2", "deepspeed_zero2", "deepspeed_zero3")
    train_in_processes(
        shards, tmp_path, *(f"{name} {step} {options}" for step, name in enumerate(strategies, start=1)), zygote=zygote
    )
    for step in range(1, 5):
        assert (tmp_path / "samples" / f"step={step:08d}" / "grid.mp4").exists()


def test_run_that_changes_strategies_equals_one_process(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    config = configuration(shards, *ADAMW, *MICRO_BATCHES, VALIDATION, *EMAS.split(), "trainer.max_steps=10")
    first = {**config, "trainer": {**config["trainer"], "max_steps": 1}}
    run = tmp_path / "many"
    train(tmp_path / "one", config)
    train(run, first)
    train_in_processes(shards, run, *(f"{stage} {VALIDATION} {EMAS}" for stage in STAGES), zygote=zygote)
    train(run, config, resume=True)

    expected, found = content(tmp_path / "one"), content(run)
    assert expected.keys() == found.keys()
    assert len(ema_snapshots_of(run)) == 5
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-7, msg=name)
    for name in ("train/loss", "val/loss", "train/grad_norm"):
        assert curve(run, name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-5)
    assert [folder.name for folder in sorted((run / "samples").glob("step=*"))] == ["step=00000003", "step=00000007"]


@pytest.mark.chaos
def test_each_strategy_goes_on_from_each_other_on_one_two_and_four_processes(
    tmp_path: Path, shards: Path, zygote: Zygote
) -> None:
    names = ["ddp", "fsdp2", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3"]
    on_two = each_pair(names)
    assert len(set(pairwise(on_two))) == len(names) ** 2
    run, step = tmp_path / "many", 1
    config = configuration(shards, *ADAMW, *MICRO_BATCHES, "trainer.max_steps=60")
    train(run, {**config, "trainer": {**config["trainer"], "max_steps": step}})
    for num_processes, stages in ((4, names), (2, on_two), (4, names[::-1]), (1, []), (4, names), (1, []), (2, names)):
        steps = range(step + 1, step + 1 + max(1, len(stages)))
        if num_processes == 1:
            train(run, {**config, "trainer": {**config["trainer"], "max_steps": steps[-1]}}, resume=True)
        else:
            named = [f"{name} {number}" for name, number in zip(stages, steps, strict=True)]
            train_in_processes(shards, run, *named, num_processes=num_processes, zygote=zygote)
        step = steps[-1]
        one = tmp_path / f"one-{step}"
        train(one, {**config, "trainer": {**config["trainer"], "max_steps": step}})
        expected, found = content(one), content(run)
        assert expected.keys() == found.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=f"{name}, step {step}")
        assert curve(run, "train/loss") == pytest.approx(curve(one, "train/loss"), rel=1e-4)
        reference = SavedCheckpoint(latest_checkpoint(one))
        for ema, files in (("true", reference.ema), ("false", reference.weights)):
            exported = tmp_path / f"export-{step}-{ema}"
            command = ["export", f"checkpoint={run}", f"to={exported}", f"ema={ema}"]
            subprocess.run([sys.executable, "-m", "vdm.cli.main", *command], check=True)
            for name, tensor in load_file(exported / "model.safetensors").items():
                torch.testing.assert_close(tensor, files.whole(name), rtol=0, atol=1e-6, msg=name)


def test_bf16_losses_of_each_strategy_are_those_of_one_process(tmp_path: Path, shards: Path, zygote: Zygote) -> None:
    bf16 = "trainer.precision=bf16-mixed"
    train(tmp_path / "one", configuration(shards, *ADAMW, *MICRO_BATCHES, bf16, "trainer.max_steps=8"))
    stages = ("ddp 2", "fsdp2 4", "deepspeed_zero2 6", "deepspeed_zero3 8")
    train_in_processes(shards, tmp_path / "many", *(f"{stage} {bf16}" for stage in stages), zygote=zygote)
    losses = curve(tmp_path / "one", "train/loss")
    assert len(losses) == 8
    assert curve(tmp_path / "many", "train/loss") == pytest.approx(losses, rel=1e-2)


@pytest.mark.parametrize(
    ("millions", "per_node", "num_nodes", "expected", "replicate"),
    [
        (100, 1, 1, SingleDevice, None),
        (100, 8, 2, DataParallel, None),  # 2 GB of 24 GiB
        (5000, 8, 2, FSDP2, "nodes"),  # 100 GB of 192 GiB in a node
        (5000, 8, 1, FSDP2, "none"),
        (20000, 8, 2, FSDP2, "none"),
    ],
)
def test_automatic_choice_follows_from_size_and_memory_and_says_why(
    caplog: pytest.LogCaptureFixture,
    millions: int,
    per_node: int,
    num_nodes: int,
    expected: type,
    replicate: str | None,
) -> None:
    model = torch.nn.Linear(1000, 1000 * millions, bias=False, device="meta")
    with caplog.at_level(logging.INFO):
        chosen = auto(model, Devices(torch.device("cpu"), per_node, num_nodes, 24 * 2**30), num_emas=1)
    assert type(chosen) is expected
    assert getattr(chosen, "replicate", None) == replicate
    (line,) = caplog.messages
    assert line.startswith("strategy=auto: ")
    assert f"{float(millions)} M weights" in line


def test_automatic_choice_counts_emas() -> None:
    model = torch.nn.Linear(1000, 500_000, bias=False, device="meta")  # 8 GB, and 2 GB an average
    devices = Devices(torch.device("cpu"), 8, 1, 24 * 2**30)
    assert type(auto(model, devices, num_emas=1)) is DataParallel
    assert type(auto(model, devices, num_emas=3)) is FSDP2


def test_buckets_are_even_as_deepspeed_wants_them_whatever_the_number_of_weights() -> None:
    strategy = DeepSpeedZeRO(stage=2)
    strategy.parallel_devices = [torch.device("cpu")]
    strategy._lightning_module = torch.nn.Linear(100, 1)  # type: ignore[assignment]
    options = strategy._config(clip=0.0)["zero_optimization"]
    assert options["allgather_bucket_size"] == options["reduce_bucket_size"] == 12


def test_missing_deepspeed_is_one_line(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^strategy: deepspeed is not installed: install the extra 'deepspeed'"):
        build_training(configuration(shards, "strategy=deepspeed_zero2"), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("strategy=deepspeed_zero2", "trainer.precision=bf16-true"),
            r"trainer\.precision: 'bf16-true' is not",
        ),
        (("strategy=deepspeed_zero2", "+strategy.offload_parameters=true"), r"offload_parameters=true needs stage=3"),
        (
            ("strategy=ddp", "strategy.timeout_seconds=0"),
            r"strategy\.timeout_seconds: 0 is not allowed",
        ),
        (("strategy=fsdp2", "strategy.replicate=racks"), r"strategy\.replicate: 'racks' is not allowed"),
        (("blocks.recompute=[5]",), r"blocks: recompute: the network has blocks of levels \[0, 1\], but none of \[5\]"),
        (("blocks.recompute=some",), r"blocks\.recompute"),
    ],
)
def test_impossible_strategy_is_one_line(
    tmp_path: Path, shards: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        build_training(configuration(shards, *overrides), tmp_path)
    assert "\n" not in str(refused.value)
