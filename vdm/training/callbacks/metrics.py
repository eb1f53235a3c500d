"""Training scalars: loss, also by noise level, gradient norm, learning rate, speed."""

import time
from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.ranges import Count
from vdm.training.level_means import LevelMeans
from vdm.training.module import NUM_LEVEL_BINS, DiffusionModule, log_scalars
from vdm.types import ClipBatch


class LogMetrics(Callback):
    """Logs means since the last log, over all processes: at regular steps, after the first step and at the end.

    Args:
        every_steps: Optimizer steps from one log to the next.
    """

    def __init__(self, every_steps: Count) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, but is {every_steps}")
        self.every_steps = every_steps

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Begin the first interval."""
        self._logged_step = trainer.global_step
        self._begin(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: DiffusionModule,
        outputs: Mapping[str, Any],
        batch: ClipBatch,
        batch_idx: int,
    ) -> None:
        """Add a micro-batch, and log at the end of an interval."""
        self._losses.add(outputs["loss_per_clip"], outputs["t"], outputs["weight"], outputs["scalars"])
        step = trainer.global_step
        if (step % self.every_steps == 0 or step == 1) and step != self._logged_step:
            self._log(trainer, pl_module, step)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Log the last step."""
        if trainer.global_step != self._logged_step:
            self._log(trainer, pl_module, trainer.global_step)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Stop the training clock: validation is not training time."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Restart the training clock."""
        self._interval_start += time.perf_counter() - self._validation_start

    def _log(self, trainer: lightning.Trainer, module: DiffusionModule, step: int) -> None:
        self._losses.reduce(trainer.strategy)
        elapsed = time.perf_counter() - self._interval_start
        num_clips = module.data.position - self._start_position
        scalars = self._losses.named("train")
        scalars |= {
            "train/grad_norm": float(module.grad_norm),
            "train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "perf/clips_per_second": num_clips / elapsed,
            "perf/data_wait_fraction": (seconds_waited(trainer) - self._waited) / elapsed,
            "data/position": float(module.data.position),
        }
        log_scalars(trainer, scalars)
        self._logged_step = step
        self._begin(trainer, module)

    def _begin(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        self._losses = LevelMeans(NUM_LEVEL_BINS, module.device)
        self._interval_start = time.perf_counter()
        self._waited = seconds_waited(trainer)
        self._start_position = module.data.position


def seconds_waited(trainer: lightning.Trainer) -> float:
    """Return how long this process has waited for batches to train on."""
    return trainer.train_dataloader.seconds_waited  # type: ignore[union-attr]
