"""Snapshots of power-function EMAs along training, from which ``vdm ema`` makes an EMA of any length."""

from pathlib import Path
from typing import Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from vdm.checkpoints.layout import EMA_SNAPSHOTS_NAME, ema_snapshot_folder
from vdm.checkpoints.pieces import Piece
from vdm.checkpoints.removal import clear_interrupted
from vdm.ranges import Count, Folder
from vdm.training.module import DiffusionModule

_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


class SaveEMASnapshots(Callback):
    """Saves snapshots of the run's power-function EMAs in the background, if the run has any.

    Each process saves its slices. Checkpoints hold the EMAs too, so the last step needs no snapshot. This callback
    comes before ``SaveCheckpoints``: a snapshot is complete before any checkpoint that is begun after it.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one snapshot to the next. More snapshots make post-hoc EMAs more exact; 20 in
            a run are many.
        dtype: Number format. ``fp16`` takes half the space; tensors that exceed its range are saved as fp32.
    """

    def __init__(self, run: Folder, every_steps: Count, dtype: Literal["fp16", "fp32"] = "fp16") -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, but is {every_steps}")
        self.run = Path(run)
        self.every_steps = every_steps
        self.dtype = _DTYPES[dtype]

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Complete a snapshot that has been written, and begin one after every ``every_steps`` steps."""
        if not pl_module.ema.power_functions:
            return
        writer = pl_module.strategy.ema_writer
        writer.poll()
        step, position = trainer.global_step, pl_module.data.position
        if step % self.every_steps == 0 and position != self._saved_position:
            self._saved_position = position
            writer.finish()
            writer.start(ema_snapshot_folder(self.run, step), self._pieces(pl_module), None)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Skip snapshots that were saved before the resume, and remove an unfinished one, which is saved again.

        They are told apart by position: after a roll-back the run reaches the same step again, with other weights.
        """
        self._saved_position = pl_module.data.position
        if trainer.is_global_zero:
            clear_interrupted(self.run / EMA_SNAPSHOTS_NAME)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Wait until the last snapshot is on the disk."""
        pl_module.strategy.ema_writer.finish()

    def _pieces(self, module: DiffusionModule) -> dict[str, dict[str, Piece]]:
        pieces = {
            kind.name: module.strategy.ema_pieces(module.ema.weights[kind.name]) for kind in module.ema.power_functions
        }
        return {
            kind: {name: Piece(self._small(piece.values), piece.shape, piece.start) for name, piece in of_kind.items()}
            for kind, of_kind in pieces.items()
        }

    def _small(self, values: Tensor) -> Tensor:
        small = values.to(self.dtype)
        return small if small.isfinite().all() else values
