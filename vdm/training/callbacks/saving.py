"""Checkpoints while training and at its end."""

from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.checkpoints.runs import checkpoint_folder, prune


class SaveCheckpoints(Callback):
    """Saves every so many steps, at the end, and when training is told to stop.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one checkpoint to the next.
        keep_last: How many of the latest checkpoints are kept.
    """

    def __init__(self, run: str | Path, every_steps: int, keep_last: int = 3) -> None:
        for name, value in (("every_steps", every_steps), ("keep_last", keep_last)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        self.run = Path(run)
        self.every_steps = every_steps
        self.keep_last = keep_last
        self.last_saved = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Don't write again the checkpoint that a resumed run starts from."""
        self.last_saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: object
    ) -> None:
        """Save after every ``every_steps`` steps."""
        if trainer.global_step % self.every_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the last step, also where training was stopped."""
        self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """Save unless this step is saved already."""
        if trainer.global_step == self.last_saved:
            return
        trainer.save_checkpoint(checkpoint_folder(self.run, trainer.global_step))
        self.last_saved = trainer.global_step
        if trainer.is_global_zero:
            prune(self.run, self.keep_last)
