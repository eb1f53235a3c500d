"""Every use of Lightning's private names, in one place.

Lightning has no public way to do what these functions do. Its private names may change in any release, so the version
is bounded in ``pyproject.toml``, and ``tests/training/test_lightning_internals.py`` looks up each name in the installed
version.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.optim import Optimizer


def disable_signal_handlers(trainer: lightning.Trainer) -> None:
    """Keep Lightning from installing its own signal handlers, which save checkpoints inside the handler."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def completes_step(trainer: lightning.Trainer) -> bool:
    """Tell whether the current micro-batch is the last one of its optimizer step."""
    return not trainer.fit_loop._should_accumulate()


def run_hooks_before_step(precision: Precision, module: lightning.LightningModule, optimizer: Optimizer) -> None:
    """Call the hooks that Lightning calls between the backward pass and the optimizer step."""
    precision._after_closure(module, optimizer)


def note_device(module: lightning.LightningModule, device: torch.device) -> None:
    """Set ``module.device``, as ``module.to(device)`` does, without moving any weight."""
    module._device = device


# Progress of the loops


def put_between_steps(checkpoint: dict[str, Any], micro_batches: int) -> None:
    """Rewrite the progress of the loops in a checkpoint so that training resumes at the first micro-batch of a step.

    Lightning counts micro-batches, and derives from that count which of them complete a step. The saved count is
    invalid if the number of micro-batches in a step has changed, or if training ended inside a step. Training is one
    endless epoch, which is therefore still in progress.

    Args:
        checkpoint: The checkpoint as Lightning loaded it; changed in place.
        micro_batches: Micro-batches in an optimizer step from now on.
    """
    loop = checkpoint["loops"]["fit_loop"]
    num_done = checkpoint["global_step"] * micro_batches
    done = {"ready": num_done, "started": num_done, "processed": num_done, "completed": num_done}
    under_way = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    checkpoint["epoch"] = 0
    loop["epoch_progress"] = {"total": dict(under_way), "current": dict(under_way)}
    loop["epoch_loop.batch_progress"] = {"total": dict(done), "current": dict(done), "is_last_batch": False}
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]


def set_global_step(trainer: lightning.Trainer, step: int) -> None:
    """Set the number of optimizer steps done, at the end of the last micro-batch of a step.

    Lightning counts that micro-batch, and its step, as completed only after the callbacks' ``on_train_batch_end``.
    """
    loop = trainer.fit_loop.epoch_loop
    for progress in (
        loop.automatic_optimization.optim_progress.optimizer.step.total,
        loop.automatic_optimization.optim_progress.optimizer.step.current,
    ):
        progress.ready = progress.completed = step
    num_done = step * trainer.accumulate_grad_batches
    for progress in (loop.batch_progress.total, loop.batch_progress.current):
        progress.ready = progress.started = progress.processed = num_done  # pyright: ignore[reportAttributeAccessIssue]
        progress.completed = num_done - 1
    loop._batches_that_stepped = step - 1


# Strategies and launchers


def set_precision_plugin(strategy: Strategy, plugin: Precision | None) -> None:
    """Set the plug-in for mixed precision of a strategy that overrides the property ``precision_plugin``."""
    strategy._precision_plugin = plugin


@contextmanager
def module_hidden(strategy: Strategy) -> Iterator[None]:
    """Hide the module from a strategy while the context lasts, so that its ``teardown`` leaves the module alone."""
    module, strategy._lightning_module = strategy._lightning_module, None
    try:
        yield
    finally:
        strategy._lightning_module = module


class ScriptLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, which runs this process's command once for each further local rank."""

    def start_processes(self) -> list[subprocess.Popen[bytes]]:
        """Start the processes of the further local ranks, and return them.

        Lightning's observer, which kills this process without a message when one of them fails, gets none to observe.
        """
        super()._call_children_scripts()
        started, self.procs = self.procs, []
        return started

    def _call_children_scripts(self) -> None:
        self.start_processes()


class OpenDDPStrategy(DDPStrategy):
    """Lightning's DDP with public methods for what subclasses choose: launcher, backend and options of the wrapper."""

    def make_launcher(self, timeout_seconds: float) -> ScriptLauncher:
        """Return the launcher of this machine's processes.

        Args:
            timeout_seconds: How long processes wait for each other.
        """
        raise NotImplementedError

    def choose_backend(self) -> str:
        """Return the backend of the process group, once the device is known."""
        return super()._get_process_group_backend()

    @property
    def wrapper_options(self) -> dict[str, Any]:
        """Options of ``torch.nn.parallel.DistributedDataParallel``, which ``configure_ddp`` passes on."""
        return self._ddp_kwargs

    def _configure_launcher(self) -> None:
        self._launcher = self.make_launcher(float("inf") if self._timeout is None else self._timeout.total_seconds())

    def _get_process_group_backend(self) -> str:
        return self.choose_backend()
