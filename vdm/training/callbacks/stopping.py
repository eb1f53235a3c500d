"""Ctrl-C, termination, a lost terminal, preemption, a time limit: a step is finished and saved, then training ends."""

import os
import signal
import time
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vdm.training.lightning_internals import disable_signal_handlers
from vdm.training.module import DiffusionModule
from vdm.training.slurm import STOP_SIGNALS, SlurmJob, hold_stop_signals, release_stop_signals

_SECONDS_OF_ONE_REQUEST = 0.5
"""Terminals and wrappers such as ``timeout`` and ``uv run`` both send what one Ctrl-C means, a moment apart."""


class StopOnSignal(Callback):
    """Ends training after the present step when any process gets a signal; a second Ctrl-C, later, ends it at once.

    The handler does no more than set a flag, and all processes agree on it before the first step, between steps and
    between batches of validation: a checkpoint written, or a collective begun, inside a handler may deadlock or be
    torn. Lightning's own handlers do both, so they are left out from beginning to end. A lost terminal's signal stays
    ignored where it was from the start, as ``nohup`` has it.
    """

    SIGNALS = (signal.SIGINT, signal.SIGHUP, *STOP_SIGNALS)

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that ends training, if this process got one."""
        self.stopped = False
        """Whether a signal, here or on another process, ended training."""
        self._interrupted_at: float | None = None
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Take over the signals, before Lightning does: a checkpoint that is loaded next may take minutes."""
        disable_signal_handlers(trainer)
        for number in self.SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._terminals = [file for file in (1, 2) if os.isatty(file)]
        release_stop_signals()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop before the first step if any process was told to by now."""
        self._step = trainer.global_step
        self._agree(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: object
    ) -> None:
        """Stop at the end of an optimizer step if any process was told to."""
        if trainer.global_step == self._step:
            return  # between micro-batches of one step
        self._step = trainer.global_step
        self._agree(trainer)

    def on_validation_batch_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Break off validation, with which Lightning answers a stop too, if any process was told to stop."""
        if not self.stopped:
            self._agree(trainer)
        if self.stopped:
            pl_module.is_validation_whole = False
            raise StopIteration  # as if there were no more batches

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _agree(self, trainer: lightning.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.stopped = True
            trainer.should_stop = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at is None:
                self._interrupted_at = now
            elif now - self._interrupted_at > _SECONDS_OF_ONE_REQUEST:
                raise KeyboardInterrupt
        if number == signal.SIGHUP:
            self._do_without_terminal()
        self.received = self.received or number

    def _do_without_terminal(self) -> None:
        """Write nowhere from now on where a terminal is gone: writing to it is an error, which would end the run."""
        for file in self._terminals:
            if not os.isatty(file):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, file)
                os.close(nowhere)

    def _restore(self) -> None:
        self._do_without_terminal()  # it may be gone without a signal, if that is ignored
        if SlurmJob.current() is not None:
            hold_stop_signals()  # from what is started to requeue the job; nothing is left that could be lost
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
