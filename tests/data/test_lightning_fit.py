"""Lightning's trainer on the data module, without this project's own module."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer

from vdm.data.datamodule import ClipDataModule
from vdm.data.order import PADDING
from vdm.types import ClipBatch


class CountingModule(LightningModule):
    """Trains one number and notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[int] = []
        self.validated: list[int] = []

    def training_step(self, batch: ClipBatch, batch_index: int) -> torch.Tensor:
        self.trained += batch.positions.tolist()
        return (self.weight - batch.video.float().mean()).square()

    def validation_step(self, batch: ClipBatch, batch_index: int) -> None:
        self.validated += batch.positions.tolist()

    def on_train_batch_end(self, outputs: object, batch: ClipBatch, batch_index: int) -> None:
        if (batch_index + 1) % self.trainer.accumulate_grad_batches == 0:
            self.trainer.datamodule.consumed(6)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: ClipDataModule, root: Path, max_steps: int, checkpoint: Path | None = None) -> CountingModule:
    model = CountingModule()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        accumulate_grad_batches=data.accumulation(1),
        use_distributed_sampler=False,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
    )
    trainer.fit(model, data, ckpt_path=checkpoint)
    trainer.save_checkpoint(root / f"{max_steps}.ckpt")
    return model


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's use of torch
@pytest.mark.parametrize("num_workers", [0, 1])
def test_lightning_trains_without_end_of_epoch_and_resumes_at_the_position(
    shard_set: Path, tmp_path: Path, num_workers: int
) -> None:
    def data() -> ClipDataModule:
        return ClipDataModule(shard_set, global_batch_size=6, micro_batch_size=4, num_workers=num_workers)

    first = fit(data(), tmp_path, max_steps=5)  # 30 positions: more than the 23 of an epoch
    assert first.trained == list(range(30))
    assert first.validated == [*range(7), PADDING] * 2
    second = fit(data(), tmp_path, max_steps=8, checkpoint=tmp_path / "5.ckpt")
    assert second.trained == list(range(30, 48))
    assert multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's use of torch
def test_an_error_in_training_ends_the_workers(shard_set: Path, tmp_path: Path) -> None:
    data = ClipDataModule(shard_set, global_batch_size=5, micro_batch_size=5, num_workers=2)
    with pytest.raises(AssertionError, match="only whole optimizer steps"):
        fit(data, tmp_path, max_steps=5)  # consumes 6 a step
    assert multiprocessing.active_children() == []
