"""With deterministic kernels a run that is interrupted ends, bit for bit, as one left alone."""

from pathlib import Path

import pytest
import torch

from tests.gpu.devices import backend, number_of_devices, on
from tests.training.stages import train_in_processes
from tests.training.test_resume import tensors_of

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("strategy", "wanted"), [("auto", "one"), ("fsdp2", "one"), ("ddp", "all"), ("fsdp2", "all")])
def test_resumed_run_equals_uninterrupted_run(
    tmp_path: Path, shards: Path, device: str, strategy: str, wanted: str, precision: str
) -> None:
    number = number_of_devices(device, wanted)
    options = [*on(device, number), "trainer.deterministic=true", f"trainer.precision={precision}"]
    options += ["model.network.dropout=0.2", *([] if strategy == "auto" else [backend(device)])]

    def go_on(run: str, step: int) -> None:
        stage = " ".join((strategy, str(step), *options))
        train_in_processes(shards, tmp_path / run, stage, num_processes=number)

    go_on("whole", 4)
    go_on("parts", 2)
    go_on("parts", 4)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert {name.split()[0] for name in whole} >= {"weights", "ema", "optimizer"}
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=0, msg=name)
