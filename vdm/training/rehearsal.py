"""A short rehearsal of a training run: a few steps, one validation, sampling, saving and loading."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.checkpoints.collectives import run_on_all
from vdm.checkpoints.folder import folder_bytes
from vdm.checkpoints.frozen import frozen_folder_of
from vdm.checkpoints.layout import checkpoint_folder
from vdm.training.callbacks.samples import SampleVideos
from vdm.training.callbacks.saving import SaveCheckpoints
from vdm.training.module import DiffusionModule

NUM_STEPS = 3
"""Optimizer steps. The first is slower, since it sets things up; it is timed only if it is the only one."""
SECONDS = 20.0
"""After this time no further step begins."""


class Rehearsal(Callback):
    """Ends training after a few steps, and records the time of each part. It comes before all other callbacks."""

    def __init__(self) -> None:
        self.stage = "opening the data"
        """The current stage, for the message if it fails."""
        self.first_step = 0
        self.losses: list[float] = []
        """Loss of this process's last micro-batch of each step."""
        self.seconds: dict[str, float] = {}
        """Time of the parts beside the steps: ``validation``, ``sampling``, ``saving``, ``loading``."""
        self.checkpoint_bytes, self.frozen_bytes = 0, 0
        self._step_seconds: list[float] = []

    @property
    def step_seconds(self) -> float | None:
        """Median time of a step, with loading its clips; ``None`` before the first."""
        timed = self._step_seconds[1:] or self._step_seconds
        return median(timed) if timed else None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Start the clock."""
        self.stage = "the first training step"
        self.first_step = self._step = trainer.global_step
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: DiffusionModule, outputs: Any, *args: object
    ) -> None:
        """Record a step, and end training after the last one; Lightning then validates once."""
        if trainer.global_step == self._step:
            return  # between micro-batches of one step
        self.losses.append(outputs["loss_per_clip"][outputs["weight"] > 0].mean().item())  # waits for the device
        now = time.perf_counter()
        self._step = trainer.global_step
        self._step_seconds.append(now - (self._begun + sum(self._step_seconds)))
        is_last = len(self._step_seconds) >= NUM_STEPS or now - self._begun > SECONDS
        is_last |= 0 < trainer.max_steps <= trainer.global_step
        if trainer.strategy.reduce_boolean_decision(is_last, all=False):
            trainer.should_stop = True
        self.stage = "a training step"

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Start the clock."""
        self.stage = "validation"
        self._at = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Record the time of validation."""
        self.seconds["validation"] = time.perf_counter() - self._at

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Sample as the run does, save a checkpoint, and load it as a resumed run does."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning does not declare it
        for samples in [one for one in callbacks if isinstance(one, SampleVideos)]:
            with self._timed("sampling"):
                samples.sample(trainer, pl_module)
        (saving,) = [one for one in callbacks if isinstance(one, SaveCheckpoints)]
        folder = checkpoint_folder(saving.run, trainer.global_step)
        with self._timed("saving"):
            saving.save(trainer, pl_module)
            pl_module.strategy.writer.finish()
        self.checkpoint_bytes = run_on_all(lambda: folder_bytes(folder))[0]
        self.frozen_bytes = run_on_all(lambda: _bytes_of_frozen(folder))[0]
        with self._timed("loading"):
            checkpoint = pl_module.strategy.load_checkpoint(folder)
            pl_module.strategy.load_model_state_dict(checkpoint)
            pl_module.strategy.load_optimizer_state_dict(checkpoint)
            pl_module.ema.load_state(checkpoint)
        self.stage = "the end"

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self.stage, start = name, time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _bytes_of_frozen(checkpoint: Path) -> int:
    frozen = frozen_folder_of(checkpoint)
    return 0 if frozen is None else folder_bytes(frozen)
