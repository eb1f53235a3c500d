"""Callbacks that do what broken clips, broken hardware and schedulers do."""

import os
import shutil
import signal
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import Field

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


class RemoveFrozenWeights(Callback):
    """Removes the weights that are not trained from the run's folder after each step, as a user may."""

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: ClipBatch, batch_idx: int
    ) -> None:
        """Remove them."""
        shutil.rmtree(Path(trainer.default_root_dir) / "frozen", ignore_errors=True)
