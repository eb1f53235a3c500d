from pathlib import Path

import pytest
import torch

from tests.training.runs import SGD, configuration, train
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.checkpoints.tree import split


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's latest checkpoint: weights, EMA weights, moments."""
    checkpoint = SavedCheckpoint(latest_checkpoint(run))
    found = split(checkpoint.state(), "checkpoint")[1]
    for kind in ("weights", "ema", "optimizer"):
        files = getattr(checkpoint, kind)
        found |= {f"{kind} {name}": files.whole(name) for name in files.shapes}
    return found


@pytest.mark.parametrize("micro_batch_size", [4, 2, 3])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, shards: Path, micro_batch_size: int) -> None:
    config = configuration(shards, f"data.micro_batch_size={micro_batch_size}", "model.network.dropout=0.2")
    train(tmp_path / "whole", config)
    stopped = {**config, "trainer": {**config["trainer"], "max_steps": 2}}
    train(tmp_path / "parts", stopped)
    train(tmp_path / "parts", config, resume=True)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=0, msg=name)


def test_run_resumed_with_other_micro_batches_equals_uninterrupted_run(tmp_path: Path, shards: Path) -> None:
    # Adam would divide gradients near zero by their own size, and so make rounding errors as large as a step.
    config = configuration(shards, *SGD, "optimizer.lr=1e-2")
    train(tmp_path / "whole", config)
    stopped = {**config, "trainer": {**config["trainer"], "max_steps": 1}}
    train(tmp_path / "parts", stopped)
    config["data"]["micro_batch_size"] = 1
    resumed = train(tmp_path / "parts", config, resume=True)
    assert resumed.trainer.global_step == 4
    assert resumed.data.position == 16
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=1e-6, msg=name)


def test_resumed_run_of_another_global_batch_is_refused(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=1")
    train(tmp_path, config)
    config["data"]["global_batch_size"] = 8
    with pytest.raises(ValueError, match="global_batch_size=8: the checkpoint was trained with 4"):
        train(tmp_path, config, resume=True)
