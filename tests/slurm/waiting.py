"""A callback by which a test knows when to interrupt a run."""

import os
import time
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.training.callbacks.stopping import StopOnSignal


class WaitForSignal(Callback):
    """Lets each start of a job but the last do some steps, say so in a file, and wait for a signal.

    Args:
        run: Folder of the run.
        num_starts: Starts of the job that wait.
        num_steps: Steps of each.
    """

    def __init__(self, run: str | Path, num_starts: int, num_steps: int) -> None:
        self.run = Path(run)
        self.start = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.stop_at = num_steps * (self.start + 1) if self.start < num_starts else None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: object
    ) -> None:
        if trainer.global_step != self.stop_at:
            return
        (self.run / f"start{self.start}.rank{trainer.global_rank}").write_text(str(os.getpid()))
        (stop,) = [callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal)]
        while stop.received is None:
            time.sleep(0.05)


class Fail(Callback):
    """Fails after a step, in each start.

    Args:
        step: The step.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: object
    ) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("broken for good")
