"""Training figures: loss, also by noise level, gradient norm, learning rate, speed, memory, and where the time goes."""

import time
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from vdm.ranges import Count, Positive
from vdm.training.level_means import LevelMeans
from vdm.training.loggers.base import run_loggers
from vdm.training.memory_use import memory_use
from vdm.training.module import NUM_LEVEL_BINS, DiffusionModule, log_scalars
from vdm.training.step_flops import peak_flops
from vdm.types import ClipBatch


class LogMetrics(Callback):
    """Logs means since the last log, over all processes: at regular steps, after the first step and at the end.

    Args:
        every_steps: Optimizer steps from one log to the next.
        peak_teraflops: What one device can do at most, in 10^12 operations a second; ``None`` measures a large matrix
            product in the precision of training.
    """

    def __init__(self, every_steps: Count, peak_teraflops: Positive | None = None) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, but is {every_steps}")
        self.every_steps = every_steps
        self.peak_teraflops = peak_teraflops

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Begin the first interval."""
        self._logged_step = trainer.global_step
        dtype = torch.bfloat16 if str(trainer.precision).startswith("bf16") else torch.float32
        dtype = torch.float16 if str(trainer.precision).startswith("16") else dtype
        self._peak = 1e12 * self.peak_teraflops if self.peak_teraflops else peak_flops(pl_module.device, dtype)
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
        pl_module.clock.add("validation", time.perf_counter() - self._validation_start)

    def _log(self, trainer: lightning.Trainer, module: DiffusionModule, step: int) -> None:
        self._losses.reduce(trainer.strategy)
        data = module.data
        scalars = self._losses.named("train")
        scalars |= {
            "train/grad_norm": float(module.grad_norm),
            "train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "data/position": float(data.position),
            "data/num_bad_samples": float(self._num_bad(trainer)),
            "data/num_skipped_steps": float(module.num_skipped_steps),
            "data/epoch": data.position / max(1, data.num_train_samples),
        }
        scalars |= {f"train/ema_decay/{name}": decay for name, decay in module.ema.decays().items()}
        scalars |= self._speed(trainer, module)
        scalars |= {f"perf/memory_gib/{kind}": size / 2**30 for kind, size in memory_use(module, trainer).items()}
        log_scalars(trainer, scalars)
        edges, heights = self._losses.bars()
        for logger in run_loggers(trainer):
            logger.log_histogram("train/loss_by_level", edges, heights, step)
        self._logged_step = step
        self._begin(trainer, module)

    def _num_bad(self, trainer: lightning.Trainer) -> int:
        """Return how many samples could not be used since this start, over all processes."""
        mine = torch.tensor(float(trainer.train_dataloader.num_bad), device=trainer.strategy.root_device)  # type: ignore[union-attr]
        return int(trainer.strategy.reduce(mine, reduce_op="sum"))  # pyright: ignore[reportArgumentType]

    def _speed(self, trainer: lightning.Trainer, module: DiffusionModule) -> dict[str, float]:
        """Return rates while training, and the shares of the whole time that were spent otherwise or waiting."""
        wall = time.perf_counter() - self._interval_start
        interruptions = {
            name: seconds - self._interrupted.get(name, 0.0) for name, seconds in module.clock.seconds.items()
        }
        training = max(wall - sum(interruptions.values()), 1e-9)
        rate = (module.data.position - self._start_position) / training
        communication = module.strategy.communication_seconds
        num_steps = trainer.global_step - self._start_step
        flops = (module.flops.total - self._start_flops) / training
        return {
            "perf/clips_per_second": rate,
            "perf/frames_per_second": rate * module.data.clip_shape[0],
            "perf/flops_per_second": flops,
            "perf/peak_fraction": flops / self._peak,
            "perf/data_wait_fraction": (seconds_waited(trainer) - self._waited) / wall,
            "perf/checkpoint_wait_fraction": (module.strategy.writer.seconds_waited - self._saved) / wall,
            **({} if communication is None else {"perf/communication_fraction": communication * num_steps / wall}),
            **{f"perf/{name}_fraction": seconds / wall for name, seconds in interruptions.items()},
        }

    def _begin(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        self._losses = LevelMeans(NUM_LEVEL_BINS, module.device)
        self._interval_start = time.perf_counter()
        self._interrupted = dict(module.clock.seconds)
        self._waited = seconds_waited(trainer)
        self._saved = module.strategy.writer.seconds_waited
        self._start_position = module.data.position
        self._start_flops = module.flops.total
        self._start_step = trainer.global_step


def seconds_waited(trainer: lightning.Trainer) -> float:
    """Return how long this process has waited for batches to train on."""
    return trainer.train_dataloader.seconds_waited  # type: ignore[union-attr]
