"""Records each start and each end of training in the history of the run."""

import logging
import shlex
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback, Timer

from vdm.checkpoints.history import Event, append_event, latest_start, one_line, read_history
from vdm.checkpoints.last_figures import last_figures
from vdm.checkpoints.layout import CHECKPOINTS_NAME, checkpoint_folder, checkpoints_of, step_of
from vdm.training.callbacks.stopping import StopOnSignal
from vdm.training.module import DiffusionModule
from vdm.training.run_lock import RunLock

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Before:
    """What earlier starts of the run had done.

    Args:
        step: Optimizer steps, as far as known.
        alive: Unix seconds of their last sign of life; ``None`` if there is none, or nothing was left to do.
    """

    step: int = 0
    alive: float | None = None


class RecordHistory(Callback):
    """Writes ``RUN/history.jsonl`` in the first process; see ``vdm.checkpoints.history``.

    It comes after all other callbacks: what it records as finished or stopped is saved, and where the failure of one
    process ends all, the watchdog has found the culprit before, and tells it by ``ended``.

    Args:
        run: Folder of the run.
        stop: Callback that ends training on a signal.
    """

    def __init__(self, run: Path, stop: StopOnSignal) -> None:
        self.run = run
        self.stop = stop
        self._trainer: lightning.Trainer | None = None
        """The trainer, in the first process alone."""
        self._before = _Before()
        self._start_step: int | None = None
        self._has_stepped = self._has_ended = False
        self._ending = threading.Lock()

    def setup(self, trainer: lightning.Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Look up what was done before, as long as the figures of steps to be repeated are there."""
        if trainer.is_global_zero:
            self._trainer = trainer
            self._before = _before(self.run, pl_module.strategy.run_lock)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Record the start."""
        self._start_step = trainer.global_step
        if self._trainer is None:
            return
        now = time.time()
        self._append(
            "start",
            now,
            command=_command(),
            host=socket.gethostname(),
            num_processes=trainer.world_size,
            devices=f"{trainer.world_size} x {pl_module.device.type}",
            strategy=type(trainer.strategy).__name__,
            max_steps=trainer.max_steps if trainer.max_steps > 0 else None,
            resumed_from=self._resumed_from(trainer),
            lost_steps=max(0, self._before.step - trainer.global_step),
            lost_seconds=0.0 if self._before.alive is None else max(0.0, now - self._before.alive),
        )

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule, *args: object) -> None:
        """Record the first step."""
        if not self._has_stepped and trainer.global_step != self._start_step:
            self._has_stepped = True
            self._append("first_step", time.time())

    def on_train_end(self, trainer: lightning.Trainer, pl_module: DiffusionModule) -> None:
        """Record the end."""
        if 0 < trainer.max_steps <= trainer.global_step:
            self._end("finish", f"all {trainer.max_steps} steps are done")
        elif self.stop.stopped:
            self._end("stop", _signal(self.stop.received))
        elif any((timer.time_remaining() or 0) <= 0 for timer in _timers(trainer)):
            self._end("stop", "trainer.max_time is over")
        else:
            self._end("finish", "a callback ended training")

    def on_exception(self, trainer: lightning.Trainer, pl_module: DiffusionModule, exception: BaseException) -> None:
        """Record a failure."""
        if isinstance(exception, KeyboardInterrupt):
            self._end("stop", "a second Ctrl-C, which ended training without saving")
        else:
            text = str(exception)
            kind = "" if isinstance(exception, ValueError) and text else f"{type(exception).__name__}: "
            self._end("fail", one_line(f"{kind}{text}".removesuffix(": ")))

    def ended(self, reason: str) -> None:
        """Record that the watchdog ends all processes; called from its thread."""
        self._end("fail", one_line(reason))

    def _end(self, event: str, reason: str) -> None:
        with self._ending:
            if not self._has_ended:
                self._has_ended = True
                self._append(event, time.time(), reason=reason)

    def _append(self, event: str, now: float, **values: object) -> None:
        if self._trainer is None:
            return
        step, position = None, None
        if self._start_step is not None:
            step, position = self._trainer.global_step, self._trainer.datamodule.position  # type: ignore[attr-defined]
        append_event(self.run, Event(event=event, time=now, step=step, position=position, **values))  # type: ignore[arg-type]

    def _resumed_from(self, trainer: lightning.Trainer) -> str | None:
        if trainer.ckpt_path is None:
            return None
        source = Path(trainer.ckpt_path)
        if source.parent.name != CHECKPOINTS_NAME:
            source = checkpoint_folder(source, trainer.global_step)
        own, folder = source.resolve(), self.run.resolve()
        return str(own.relative_to(folder) if own.is_relative_to(folder) else source)


def _before(run: Path, lock: RunLock | None) -> _Before:
    """Return what earlier starts of a run had done; what can't be read counts for nothing."""
    try:
        events = latest_start(read_history(run))
        figures = last_figures(run)
    except ValueError as error:
        _log.warning("%s; it is only a log, training goes on", error)
        return _Before()
    steps = [step_of(folder) for folder in checkpoints_of(run)]
    steps += [step for step in (figures.step, *(event.step for event in events)) if step is not None]
    signs = [figures.time, *(event.time for event in events if event.step is not None)]
    if lock is not None and not (events and events[-1].step is None):  # else of a start that did not come to train
        signs.append(lock.before)
    is_done = bool(events) and events[-1].event == "finish"
    alive = None if is_done else max((sign for sign in signs if sign is not None), default=None)
    return _Before(max(steps, default=0), alive)


def _command() -> str:
    """Return the command line of this process, quoted for a shell."""
    program = Path(sys.argv[0])
    name = "vdm" if program.name == "main.py" and program.parent.name == "cli" else program.name
    return shlex.join([name, *sys.argv[1:]])


def _signal(number: int | None) -> str:
    if number is None:
        return "a signal to another process"
    return "Ctrl-C" if number == signal.SIGINT else f"signal {signal.Signals(number).name}"


def _timers(trainer: lightning.Trainer) -> list[Timer]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # as in measuring.py
    return [callback for callback in callbacks if isinstance(callback, Timer)]
