"""Callbacks that do what broken clips, broken hardware and schedulers do."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import Field

from vdm.models.pretrained.stored import StoredTensors
from vdm.training.module import DiffusionModule
from vdm.types import ClipBatch

AnyNumber = Annotated[float, Field(allow_inf_nan=True)]
"""NaN too."""


class SpoilLosses(Callback):
    """Multiplies the loss of the samples at some positions, in whichever process trains on them.

    Args:
        positions: The positions.
        factor: What their losses are multiplied by.
        times: How often a position is spoiled before it is well again; none for always.
    """

    def __init__(self, positions: list[int], factor: AnyNumber = float("nan"), times: int | None = None) -> None:
        self.positions = positions
        self.factor = factor
        self.times = times
        self.seen: dict[int, int] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        loss = pl_module.model.denoising_loss

        def spoiled(*args: Any) -> torch.Tensor:
            clean = loss(*args)
            return clean * self.factors.to(clean) if pl_module.training else clean

        pl_module.model.denoising_loss = spoiled  # type: ignore[method-assign]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: DiffusionModule, batch: ClipBatch, batch_idx: int
    ) -> None:
        self.factors = torch.ones(len(batch))
        for index, position in enumerate(batch.positions.tolist()):
            if position in self.positions and batch.weights[index] > 0:
                self.seen[position] = self.seen.get(position, 0) + 1
                if self.times is None or self.seen[position] <= self.times:
                    self.factors[index] = self.factor


class TerminateOneRank(Callback):
    """Sends SIGTERM to the process of one rank in one of the trainer's hooks, before callbacks of the project see it.

    Args:
        hook: Name of the hook.
        rank: The rank.
    """

    def __init__(self, hook: str, rank: int = 0) -> None:
        def send(trainer: lightning.Trainer, *args: object, **kwargs: object) -> None:
            if trainer.global_rank == rank:
                os.kill(os.getpid(), signal.SIGTERM)

        setattr(self, hook, send)


class ForgetDevice(Callback):
    """Makes the module not know its device before the strategy is set up, and checks that it does afterwards."""

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        pl_module._device = torch.device("meta")

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert pl_module.device == trainer.strategy.root_device


class CountReading(Callback):
    """Writes down how many elements of stored weights this process reads before training begins.

    Args:
        folder: Where each process writes ``RANK.json``: the elements that it read, those of the largest slice, and the
            number of weights that lacked memory before the strategy was set up.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: list[int] = []
        read = StoredTensors.read

        def counted(stored: StoredTensors, name: str, start: int, count: int) -> torch.Tensor:
            self.counts.append(count)
            return read(stored, name, start, count)

        self.undo = partial(setattr, StoredTensors, "read", read)
        StoredTensors.read = counted

    def setup(self, trainer: lightning.Trainer, pl_module: DiffusionModule, stage: str) -> None:
        self.on_meta = sum(weight.numel() for weight in pl_module.parameters() if weight.is_meta)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        self.undo()
        counts = {"all": sum(self.counts), "largest": max(self.counts, default=0), "on_meta": self.on_meta}
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(counts))


class RemoveFrozenWeights(Callback):
    """Removes the weights that are not trained from the run's folder after each step, as a user may."""

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Remove them."""
        shutil.rmtree(Path(trainer.default_root_dir) / "frozen", ignore_errors=True)
