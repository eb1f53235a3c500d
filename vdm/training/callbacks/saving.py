"""Checkpoints during training and at its end."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.checkpoints.collectives import run_on_all
from vdm.checkpoints.layout import CHECKPOINTS_NAME, checkpoint_folder, step_of
from vdm.checkpoints.removal import prune
from vdm.files import write_file
from vdm.ranges import Count, CountOrZero, Folder, Name
from vdm.records import read_record
from vdm.training.loggers.base import run_loggers
from vdm.training.module import DiffusionModule

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """The checkpoints to keep: those that any of three rules keeps.

    Args:
        last: Number of latest checkpoints to keep, at least 1.
        every_steps: Checkpoints at multiples of this many steps are kept for good; ``None`` disables the rule.
        best: Number of checkpoints with the best ``metric`` to keep; 0 disables the rule.
        metric: Name of a scalar that validation or ``callbacks.measure`` logs.
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
            steps: Steps of the existing checkpoints, in ascending order.
            values: The metric at some steps, lower being better; values that are not finite are ignored.
        """
        regular = {step for step in steps if self.every_steps is not None and step % self.every_steps == 0}
        finite = {step: value for step, value in values.items() if math.isfinite(value)}
        measured = sorted((step for step in steps if step in finite), key=lambda step: finite[step])
        return regular | set(steps[-self.last :]) | set(measured[: self.best])


class SaveCheckpoints(Callback):
    """Saves at regular steps, at the end, and when training is told to stop.

    Training waits for the copy of the weights to memory; they are written to disk in the background. If that fails,
    training ends at the next step.

    Args:
        run: Folder of the run.
        every_steps: Optimizer steps from one checkpoint to the next.
        keep: The checkpoints to keep.
        in_background: Whether training continues while a checkpoint is written.
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
        self._is_warned = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Skip the checkpoint from which the run was resumed."""
        self.last_saved = trainer.global_step
        loggers = run_loggers(trainer)
        pl_module.strategy.writer.on_complete = lambda folder: [
            logger.log_checkpoint(folder, step_of(folder)) for logger in loggers
        ]
        # All take what the first one reads: a network file system may show processes different contents.
        values = run_on_all(lambda: _read_values(self._values_path))[0]
        self._values = {step: value for step, value in values.items() if step <= trainer.global_step}
        # A run that was killed while it sampled has not pruned yet.
        self._is_pruned = trainer.global_step == 0

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Complete a checkpoint that has been written, and begin one after every ``every_steps`` steps."""
        pl_module.strategy.writer.poll()
        self._prune(trainer, pl_module)
        if trainer.global_step % self.every_steps == 0:
            self.save(trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Save a model that is among the best so far by the metric."""
        if pl_module.is_validation_whole:
            self.save_if_best(trainer, pl_module)
            self._warn_of_unknown_metric(trainer, pl_module)

    def _warn_of_unknown_metric(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Warn once of a metric that nothing logs, so that no checkpoint would be the best."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # as in measuring.py
        measured = [name for callback in callbacks for name in getattr(callback, "logged_names", ())]
        if self.keep.best == 0 or self._is_warned or self.keep.metric in (*module.scalars, *measured):
            return
        self._is_warned = True
        known = sorted({*measured, *(name for name in module.scalars if name.startswith("val/"))})
        _log.warning(
            "save.keep.metric=%s: is logged by nothing, so no checkpoint is kept as the best; there are %s",
            self.keep.metric,
            ", ".join(known),
        )

    def save_if_best(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Save a model that is among the best so far by the metric, if that has been logged at this step."""
        value = pl_module.scalars.get(self.keep.metric)
        is_measured = pl_module.logged_at.get(self.keep.metric) == trainer.global_step
        if self.keep.best == 0 or value is None or not is_measured or not math.isfinite(value):
            return
        better = sorted(self._signed(pl_module).values())[: self.keep.best]
        if len(better) < self.keep.best or self._sign(pl_module) * value < better[-1]:
            self._values[trainer.global_step] = value
            self._is_pruned = False
            self.save(trainer, pl_module)
            self._prune(trainer, pl_module)  # this step's checkpoint may have been completed before it was measured

    def _sign(self, module: DiffusionModule) -> float:
        return -1.0 if self.keep.metric in module.higher_is_better else 1.0

    def _signed(self, module: DiffusionModule) -> dict[int, float]:
        """Return the metric at each step so that lower is better."""
        return {step: self._sign(module) * value for step, value in self._values.items()}

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Save the last step, also of a stopped run, and wait until it is on disk."""
        self.save(trainer, pl_module)
        pl_module.strategy.writer.finish()
        self._prune(trainer, pl_module)

    def save(self, trainer: lightning.Trainer, module: DiffusionModule) -> None:
        """Save, unless this step is saved already.

        Raises:
            ValueError: If this checkpoint, or the one before, can't be written.
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
        """Remove checkpoints that need not be kept, once after each new one, when none is in progress."""
        if self._is_pruned or module.strategy.writer.is_busy:
            return
        self._is_pruned = True
        run_on_all(module.strategy.check_lock)
        if not trainer.is_global_zero:
            return
        prune(self.run, lambda steps: self.keep.kept(steps, self._signed(module)))
        if self.keep.best > 0:
            write_file(self._values_path, json.dumps(self._values))


def _read_values(path: Path) -> dict[int, float]:
    """Return the finite metrics of checkpoints saved before the run was resumed, by step.

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
