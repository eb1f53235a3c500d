"""Stops training on a signal: the current step is finished and saved.

Signals come from Ctrl-C, termination, a lost terminal, preemption and SLURM's time limit.
"""

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
"""Signals within this time are one request: a terminal and a wrapper such as ``uv run`` both forward one Ctrl-C."""


class StopOnSignal(Callback):
    """Ends training after the current step when any process gets a signal; a second, later Ctrl-C ends it at once.

    The handler only sets a flag. All processes agree on it before the first step, between steps and between batches of
    validation: writing a checkpoint or starting a collective inside a handler could tear the file or deadlock.
    Lightning's own handlers do both, so they are disabled. ``SIGHUP`` stays ignored if it was ignored at the start, as
    under ``nohup``.
    """

    SIGNALS = (signal.SIGINT, signal.SIGHUP, *STOP_SIGNALS)

    def __init__(self) -> None:
        self.received: int | None = None
        """The first signal that this process got, if any."""
        self.stopped = False
        """Whether a signal, here or on another process, ended training."""
        self._interrupted_at: float | None = None
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Install the handlers before Lightning does, and before a checkpoint is loaded, which may take minutes."""
        disable_signal_handlers(trainer)
        for number in self.SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._terminals = [file for file in (1, 2) if os.isatty(file)]
        release_stop_signals()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop before the first step if any process has got a signal by now."""
        self._step = trainer.global_step
        self._agree(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: object
    ) -> None:
        """Stop at the end of an optimizer step if any process has got a signal."""
        if trainer.global_step == self._step:
            return  # between micro-batches of one step
        self._step = trainer.global_step
        self._agree(trainer)

    def on_validation_batch_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Stop validation early if any process has got a signal; Lightning also validates when training stops."""
        if not self.stopped:
            self._agree(trainer)
        if self.stopped:
            pl_module.is_validation_whole = False
            raise StopIteration  # as if there were no more batches

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Restore the earlier signal handlers."""
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Restore the earlier signal handlers."""
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
        """Redirect output to a lost terminal to nowhere: writing to it is an error, which would end the run."""
        for file in self._terminals:
            if not os.isatty(file):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, file)
                os.close(nowhere)

    def _restore(self) -> None:
        self._do_without_terminal()  # the terminal may be lost without a signal, if SIGHUP is ignored
        if SlurmJob.current() is not None:
            hold_stop_signals()  # so that they can't kill scontrol, which requeues the job; all is saved
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
