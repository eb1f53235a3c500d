"""Training figures: loss, also by noise level, gradient norm, learning rate, speed, memory, and where the time goes."""

import time
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from vdm.ranges import Count, Positive
from vdm.training.loggers.base import run_loggers
from vdm.training.memory_use import memory_use
from vdm.training.module import DiffusionModule, log_scalars
from vdm.training.step_flops import peak_flops
from vdm.training.weight_updates import WeightUpdates
from vdm.types import ClipBatch


class LogMetrics(Callback):
    """Logs means since the last log, over all processes: at regular steps, after the first step and at the end.

    Args:
        every_steps: Optimizer steps from one log to the next.
        peak_teraflops: What one device can do at most, in 10^12 operations a second; ``None`` measures a large matrix
            product in the precision of training.
        updates: Whether ``train/grad_norm/PART`` and ``train/update_ratio/PART`` are logged for each part of the model.
            The ratio is the norm of a step's update divided by that of the weights; 1e-3 is usual. Gradients are
            those before clipping; DeepSpeed keeps them to itself, so they are left out.

    Loss, position and clips a second are of all processes; other speeds, waits and memory are of the first.
    """

    def __init__(self, every_steps: Count, peak_teraflops: Positive | None = None, updates: bool = True) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, but is {every_steps}")
        self.every_steps = every_steps
        self.peak_teraflops = peak_teraflops
        self.updates = updates

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Begin the first interval."""
        self._logged_step = trainer.global_step
        self._updates = WeightUpdates(pl_module) if self.updates else None
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        dtype = torch.bfloat16 if str(trainer.precision).startswith("bf16") else torch.float32
        dtype = torch.float16 if str(trainer.precision).startswith("16") else dtype
        self._peak = 1e12 * self.peak_teraflops if self.peak_teraflops else peak_flops(pl_module.device, dtype)
        self._begin(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: DiffusionModule, optimizer: Optimizer
    ) -> None:
        """Note the weights before a step that is logged."""
        if self._updates is not None and self._is_logged(trainer.global_step + 1):
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            # Lightning unscales the gradients before this hook, except for fused optimizers.
            is_scaled = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
            self._updates.before_step(scaler.get_scale() if is_scaled and scaler is not None else 1.0)

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
        if step < self._start_step:  # training went back to an earlier checkpoint
            self._logged_step = step
            self._begin(trainer, pl_module)
        elif self._is_logged(step) and step != self._logged_step:
            self._log(trainer, pl_module, step)

    def _is_logged(self, step: int) -> bool:
        return step % self.every_steps == 0 or step == 1

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
        scalars |= {} if self._updates is None else self._updates.after_step()
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
        flops = (module.flops.total or 0.0) - self._start_flops
        compute = {"perf/flops_per_second": flops / training, "perf/peak_fraction": flops / training / self._peak}
        return {
            "perf/clips_per_second": rate,
            "perf/frames_per_second": rate * module.data.clip_shape[0],
            **(compute if module.flops.total is not None else {}),
            "perf/data_wait_fraction": (seconds_waited(trainer) - self._waited) / wall,
            "perf/checkpoint_wait_fraction": (module.strategy.writer.seconds_waited - self._saved) / wall,
            **({} if communication is None else {"perf/communication_fraction": communication * num_steps / wall}),
            **{f"perf/{name}_fraction": seconds / wall for name, seconds in interruptions.items()},
        }

    def _begin(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        self._losses = module.level_means()
        self._interval_start = time.perf_counter()
        self._interrupted = dict(module.clock.seconds)
        self._waited = seconds_waited(trainer)
        self._saved = module.strategy.writer.seconds_waited
        self._start_position = module.data.position
        self._start_flops = module.flops.total or 0.0
        self._start_step = trainer.global_step


def seconds_waited(trainer: lightning.Trainer) -> float:
    """Return how long this process has waited for batches to train on."""
    return trainer.train_dataloader.seconds_waited  # type: ignore[union-attr]
