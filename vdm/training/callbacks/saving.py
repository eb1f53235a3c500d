"""Checkpoints while training and at its end."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.checkpoints.collectives import together
from vdm.checkpoints.layout import CHECKPOINTS_NAME, checkpoint_folder
from vdm.checkpoints.removal import prune
from vdm.files import write_file
from vdm.ranges import Count, CountOrZero, Folder, Name
from vdm.records import read_record
from vdm.training.module import DiffusionModule


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept; one that any rule keeps is kept.

    Args:
        last: How many of the latest, at least 1.
        every_steps: Those after each multiple of so many steps, for good; none for no such rule.
        best: How many of those with the lowest ``metric``; 0 for no such rule.
        metric: Name of a scalar that is logged in validation.
    """

    last: Count = 3
    every_steps: Count | None = None
    best: CountOrZero = 0
    metric: Name = "val/loss"

    def __post_init__(self) -> None:
        for name, value, least in (
            ("last", self.last, 1),
            ("every_steps", self.every_steps, 1),
            ("best", self.best, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, but is {value}")

    def kept(self, steps: Sequence[int], values: dict[int, float]) -> set[int]:
        """Choose which checkpoints to keep.

        Args:
            steps: Steps of the checkpoints there are, in ascending order.
            values: The metric at some steps; one that is not finite does not count.
        """
        regular = {step for step in steps if self.every_steps is not None and step % self.every_steps == 0}
        finite = {step: value for step, value in values.items() if math.isfinite(value)}
        measured = sorted((step for step in steps if step in finite), key=lambda step: finite[step])
        return regular | set(steps[-self.last :]) | set(measured[: self.best])


class SaveCheckpoints(Callback):
    """Saves every so many steps, at the end, and when training is told to stop.

    Training waits while weights are copied to memory; they are written to the disk in the background. If that fails,
    training ends at the next step.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one checkpoint to the next.
        keep: Which checkpoints are kept.
        in_background: Whether training goes on while a checkpoint is written.
    """

    def __init__(
        self, run: Folder, every_steps: Count, keep: Retention | None = None, in_background: bool = True
    ) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, but is {every_steps}")
        self.run = Path(run)
        self.every_steps = every_steps
        self.keep = keep or Retention()
        self.in_background = in_background
        self.last_saved = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Don't write again the checkpoint that a resumed run starts from."""
        self.last_saved = trainer.global_step
        values = together(lambda: _read_values(self._values_path))[0]  # machines may see a shared disk differently
        self._values = {step: value for step, value in values.items() if step <= trainer.global_step}
        # A run that was killed in sampling had no time to.
        self._is_pruned = trainer.global_step == 0

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Complete what has been written meanwhile, and save after every ``every_steps`` steps."""
        pl_module.strategy.writer.poll()
        self._prune(trainer, pl_module)
        if trainer.global_step % self.every_steps == 0:
            self.save(trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Save a model that is among the best so far."""
        value = pl_module.scalars.get(self.keep.metric)
        if self.keep.best == 0 or value is None or not math.isfinite(value) or not pl_module.is_validation_whole:
            return
        better = sorted(self._values.values())[: self.keep.best]
        if len(better) < self.keep.best or value < better[-1]:
            self._values[trainer.global_step] = value
            self._is_pruned = False
            self.save(trainer, pl_module)
            self._prune(trainer, pl_module)  # samples may have completed this step's checkpoint before it was measured

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Save the last step, also where training was stopped, and wait until it is on the disk."""
        self.save(trainer, pl_module)
        pl_module.strategy.writer.finish()
        self._prune(trainer, pl_module)

    def save(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Save unless this step is saved already.

        Raises:
            ValueError: If storage refuses it, or refused the checkpoint before.
        """
        if trainer.global_step == self.last_saved:
            return
        module.strategy.writer.finish()
        self._prune(trainer, module)
        trainer.save_checkpoint(checkpoint_folder(self.run, trainer.global_step))
        self.last_saved = trainer.global_step
        self._is_pruned = False
        if not self.in_background:
            module.strategy.writer.finish()
            self._prune(trainer, module)

    @property
    def _values_path(self) -> Path:
        return self.run / CHECKPOINTS_NAME / "metric.json"

    def _prune(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Remove what need not be kept, if there is news and no checkpoint on its way, whoever completed the latest."""
        if self._is_pruned or module.strategy.writer.is_busy:
            return
        self._is_pruned = True
        together(module.strategy.check_lock)
        if not trainer.is_global_zero:
            return
        prune(self.run, lambda steps: self.keep.kept(steps, self._values))
        if self.keep.best > 0:
            write_file(self._values_path, json.dumps(self._values))


def _read_values(path: Path) -> dict[int, float]:
    """Return the metric, where it is finite, of checkpoints saved before the run was resumed.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.exists():
        return {}
    values = read_record(path, dict[str, float])
    wrong = [step for step in values if not step.isdecimal()]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]!r}: must be a number of steps")
    return {int(step): value for step, value in values.items() if math.isfinite(value)}
