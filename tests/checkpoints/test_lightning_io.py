"""Round trips with a real Trainer, and the files that it leaves."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.checkpoints.test_tree import assert_same
from vdm.checkpoints.lightning_io import SafetensorsCheckpointIO
from vdm.checkpoints.runs import checkpoint_folder, latest_checkpoint, load_weights
from vdm.randomness import generator


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lightning warns of few workers and of what it deprecates itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Regression(lightning.LightningModule):
    """A few weights, an average of them, a schedule, and data that depend on the position alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))
        self.average = {name: p.detach().clone() for name, p in self.named_parameters()}
        self.losses: list[float] = []
        self.position = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        inputs = torch.randn(4, 3, generator=generator(0, "inputs", self.position))
        self.position += 1
        loss = (self.model(inputs) - inputs.sum(1, keepdim=True).sin()).square().mean()
        self.losses.append(loss.item())
        return loss

    def optimizer_step(self, *args: Any) -> None:
        super().optimizer_step(*args)
        for name, parameter in self.named_parameters():
            self.average[name].lerp_(parameter.detach(), 0.1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, decay], milestones=[3])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.average
        checkpoint["data"] = {"position": self.position, "best": float("inf")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average = checkpoint["ema"]
        self.position = checkpoint["data"]["position"]
        assert checkpoint["data"]["best"] == float("inf")


class SaveAt(lightning.Callback):
    """Saves as a callback of the project does, and has a state of its own."""

    def __init__(self, run: Path, step: int) -> None:
        self.run, self.step, self.saved = run, step, 0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.saved:
            self.saved += 1
            trainer.save_checkpoint(checkpoint_folder(self.run, self.step))

    def state_dict(self) -> dict[str, Any]:
        return {"saved": self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = state_dict["saved"]


def _fit(run: Path, max_steps: int, resume: Path | None = None, **options: Any) -> tuple[Regression, lightning.Trainer]:
    loader = DataLoader(TensorDataset(torch.zeros(6)))
    module = Regression()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=max_steps,
        plugins=[SafetensorsCheckpointIO()],
        callbacks=[SaveAt(run, 4)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=0.5,
        default_root_dir=run,
        **options,
    )
    trainer.fit(module, loader, ckpt_path=resume)
    return module, trainer


def _state(module: Regression, trainer: lightning.Trainer) -> dict[str, Any]:
    (optimizer,) = trainer.optimizers
    (schedule,) = trainer.lr_scheduler_configs
    return {
        "weights": dict(module.state_dict()),
        "average": module.average,
        "optimizer": optimizer.state_dict(),
        "lr": schedule.scheduler.get_last_lr(),
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
    }


@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed", "accumulate_grad_batches": 2}])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, options: dict[str, Any]) -> None:
    uninterrupted, whole_trainer = _fit(tmp_path / "whole", 9, **options)
    _fit(tmp_path / "run", 4, **options)

    resumed, trainer = _fit(tmp_path / "run", 9, resume=latest_checkpoint(tmp_path / "run"), **options)

    assert_same(_state(resumed, trainer), _state(uninterrupted, whole_trainer))
    assert resumed.losses == uninterrupted.losses[-len(resumed.losses) :]
    assert trainer.callbacks[0].saved == 1  # pyright: ignore[reportAttributeAccessIssue]


def test_whole_checkpoint_is_the_same_when_read_again(tmp_path: Path) -> None:
    _, trainer = _fit(tmp_path, 5)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()

    trainer.save_checkpoint(tmp_path / "again")

    assert_same(
        dict(sorted(_plain(SafetensorsCheckpointIO().load_checkpoint(tmp_path / "again")).items())),
        dict(sorted(_plain(checkpoint).items())),
    )


def _plain(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Take weights for what they are: the file has them in an order of its own."""
    return checkpoint | {name: dict(sorted(checkpoint[name].items())) for name in ("state_dict", "ema")}


def test_files_hold_tensors_by_their_full_names_and_no_pickle(tmp_path: Path) -> None:
    module, _ = _fit(tmp_path, 4)
    folder = latest_checkpoint(tmp_path)

    names = {"checksums.json", "ema.safetensors", "model.safetensors", "state.json", "state.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(module.state_dict())
    with safe_open(folder / "state.safetensors", "pt") as file:
        assert "optimizer_states.0.state.0.exp_avg" in file.keys()  # noqa: SIM118 - it is no mapping
    assert set(load_weights(tmp_path)) == set(module.state_dict())


def test_weights_alone_can_be_saved(tmp_path: Path) -> None:
    module, trainer = _fit(tmp_path, 4)
    module.average = {}

    trainer.save_checkpoint(tmp_path / "weights", weights_only=True)

    assert_same(dict(load_weights(tmp_path / "weights")), dict(sorted(module.state_dict().items())))


def test_tied_and_overlapping_tensors_are_saved_each_in_full(tmp_path: Path) -> None:
    memory = torch.arange(12.0)
    weights = {
        "a": memory,
        "b": memory,
        "part": memory[3:5],
        "transposed": memory.view(3, 4).T,
        "scalar": memory[7],
        "empty": memory[:0],
        "also_empty": memory[:0],
    }

    SafetensorsCheckpointIO().save_checkpoint({"state_dict": weights}, tmp_path / "one")

    assert_same(dict(sorted(load_weights(tmp_path / "one").items())), dict(sorted(weights.items())))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_data_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {"w": torch.tensor([0, 1, 1]).to(dtype)}

    SafetensorsCheckpointIO().save_checkpoint({"state_dict": weights}, tmp_path / "one")

    assert_same(load_weights(tmp_path / "one"), weights)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    save = SafetensorsCheckpointIO().save_checkpoint

    with pytest.raises(ValueError, match=r"^checkpoint\.callbacks\.hook: a builtins\.function can't be saved"):
        save({"state_dict": {}, "callbacks": {"hook": _fit}}, tmp_path / "one")
    with pytest.raises(ValueError, match=r"^model: 'extra' is a dict, and only tensors can be saved"):
        save({"state_dict": {"extra": {}}}, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_removed_checkpoint_is_gone(tmp_path: Path) -> None:
    io = SafetensorsCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, tmp_path / "one")

    io.remove_checkpoint(tmp_path / "one")

    assert not list(tmp_path.iterdir())
