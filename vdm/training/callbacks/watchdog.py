"""Ends all processes of a run when one of them dies, fails or stands still."""

import traceback
from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed

from vdm.processes import ProcessDiedError
from vdm.ranges import Minutes, Port
from vdm.training.launcher import TrainingLauncher, outlive_parent
from vdm.training.lifeline import Lifeline
from vdm.training.module import DiffusionModule

_OF_COMMUNICATION = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "TCPStore")
"""Words in the errors that a process gets because another process is gone."""


class Watchdog(Callback):
    """Ends all processes of a run, with an exit code other than 0, when one of them dies, fails or stands still.

    The reason is printed once. If a process stands still, all of them write the stacks of their threads to stderr.

    Args:
        minutes: How long a process may go without a batch and without a call of the network; ``None`` for any time.
        port: Port on which the first process listens for the others; 0 takes any free port.
    """

    def __init__(self, minutes: Minutes | None = 20.0, port: Port = 0) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes must be > 0, but is {minutes}")
        if not 0 <= port < 1 << 16:
            raise ValueError(f"port must lie in [0, 65535], but is {port}")
        self.minutes = minutes
        self.port = port
        self.lifeline: Lifeline | None = None
        self.on_end: Callable[[str], None] = lambda reason: None
        """Called in the first process, in a thread, before it ends all; with the reason as it is printed."""

    def setup(self, trainer: lightning.Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Begin to watch, once the process group exists."""
        launcher = trainer.strategy.launcher
        own = launcher if isinstance(launcher, TrainingLauncher) else None
        seconds = None if self.minutes is None else 60 * self.minutes
        how_died = own.how_died if own is not None else lambda rank: None
        self.lifeline = Lifeline(seconds, self.port, how_died, self.on_end)
        if own is not None:
            own.hand_over()
        self._hook = pl_module.model.network.register_forward_pre_hook(lambda *args: self._progress())

    def on_train_batch_end(self, *args: object) -> None:
        """Note the progress of training."""
        self._progress()

    def on_validation_batch_end(self, *args: object) -> None:
        """Note the progress of validation."""
        self._progress()

    def on_exception(self, trainer: lightning.Trainer, pl_module: DiffusionModule, exception: BaseException) -> None:
        """Tell the others, and say whether the error is likely to come from one of them."""
        if self.lifeline is None:
            return
        if isinstance(exception, ValueError | ProcessDiedError):
            reason = f"failed: {exception}"
        else:
            reason = "failed:\n" + "".join(traceback.format_exception(exception)).rstrip()
        self.lifeline.failed(reason, _is_consequence(exception), 2 if isinstance(exception, ValueError) else 1)

    def teardown(self, trainer: lightning.Trainer, pl_module: DiffusionModule, stage: str) -> None:
        """Stop watching."""
        if self.lifeline is not None:
            self.lifeline.close()
            self.lifeline = None
            self._hook.remove()
            outlive_parent()

    def _progress(self) -> None:
        if self.lifeline is not None:
            self.lifeline.progress()


def _is_consequence(exception: BaseException) -> bool:
    """Tell whether an error is likely to come from the end of another process."""
    if isinstance(exception, distributed.DistError):
        return True
    is_plain = type(exception) in (RuntimeError, ConnectionError, torch.distributed.DistBackendError)
    return is_plain and any(word in str(exception) for word in _OF_COMMUNICATION)
