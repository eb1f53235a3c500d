"""One job at a time: a form is sent to each model in turn, and what becomes of it is told step by step."""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.cli.demo.calls import Form, SharedOptions, Taken, samplers, shell_line, words_of
from vdm.cli.demo.models import DemoModel
from vdm.cli.demo.preview import Preview
from vdm.cli.faults import COMPOSITION_FAULTS, is_mistake, one_line
from vdm.cli.sample import SampleCall
from vdm.text import printable

_log = logging.getLogger(__name__)
_STOPPED = "stopped"
_PATIENCE = 0.2
"""Seconds between two looks whether a waiting job has been stopped."""
_INTERVAL = 0.2
"""Seconds between two steps that are told: a browser can't keep up with each of many short ones."""


class StoppedError(Exception):
    """The visitor stopped the job."""


@dataclass(frozen=True)
class Result:
    """What one model has made of a form so far."""

    model: str
    command: str = ""
    """The same as a command line."""
    status: str = "waits for its turn"
    preview: str = ""
    """Address of a picture of the video while it is denoised."""
    video: Path | None = None
    """The finished video."""
    settings: Path | None = None
    """Record of its settings."""
    notes: tuple[str, ...] = ()
    """Warnings about the settings."""
    error: str = ""
    """Why there is no video, in one line."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.video is not None or bool(self.error)


@dataclass
class Job:
    """A form on its way through the models; ``updates`` yields their results each time that one changes."""

    form: Form
    models: Sequence[DemoModel]
    shared: SharedOptions
    is_stopped: threading.Event = field(default_factory=threading.Event)

    def updates(self, turn: threading.Lock) -> Iterator[list[Result]]:
        """Make the videos in a thread of its own, as soon as it is its turn.

        If the caller leaves, the job stops.
        """
        results = [Result(model.name) for model in self.models]
        changes: queue.Queue[tuple[int, Result] | None] = queue.Queue()
        thread = threading.Thread(target=self._work, args=(list(results), changes.put, turn), daemon=True)
        thread.start()
        try:
            yield list(results)
            while (change := changes.get()) is not None:
                results[change[0]] = change[1]
                if changes.empty():  # else a newer one makes it pointless to show this
                    yield list(results)
            yield list(results)
        finally:
            self.is_stopped.set()
            thread.join()

    def _work(
        self,
        results: Sequence[Result],
        put: Callable[[tuple[int, Result] | None], None],
        turn: threading.Lock,
    ) -> None:
        try:
            if not self._comes_to_turn(turn):
                for number, result in enumerate(results):
                    put((number, replace(result, error=_STOPPED)))
                return
            try:
                for number, (model, result) in enumerate(zip(self.models, results, strict=True)):
                    self._make(model, result, lambda now, number=number: put((number, now)))
            finally:
                turn.release()
        finally:
            put(None)

    def _comes_to_turn(self, turn: threading.Lock) -> bool:
        """Wait for the turn; return False if the job is stopped before."""
        while not turn.acquire(timeout=_PATIENCE):
            if self.is_stopped.is_set():
                return False
        return True

    def _make(self, model: DemoModel, result: Result, tell: Callable[[Result], None]) -> None:
        call: SampleCall | None = None
        try:
            self._check_stopped()
            words = words_of(self.form, taken_by(model), self.shared.words(model.checkpoint))
            result = replace(result, command=shell_line(words), status="begins")
            tell(result)
            with checking(model.model, self._check_stopped):
                with _warnings() as notes:
                    call = model.begin(words)
                self._sample(call, replace(result, notes=tuple(notes)), tell)
        except StoppedError:
            tell(replace(result, error=_STOPPED, preview=""))
        except torch.OutOfMemoryError:
            tell(replace(result, error="the device's memory is full: choose a smaller size or fewer frames"))
        except Exception as error:
            if not (is_mistake(error) or (call is None and isinstance(error, COMPOSITION_FAULTS))):
                _log.exception("a bug: %s", printable(error))
                tell(replace(result, error="failed by a bug, which the terminal shows", preview=""))
            else:
                tell(replace(result, error=printable(one_line(error)), preview=""))
        if call is not None and not call.files.videos[0].exists():
            _remove_record(call)

    def _sample(self, call: SampleCall, result: Result, tell: Callable[[Result], None]) -> None:
        shown = {"preview": ""}
        told = -math.inf

        def show(address: str) -> None:
            shown["preview"] = address

        preview = Preview(call.model.encoder, call.task.fps, show)
        of_steps = "" if call.num_steps is None else f" of {call.num_steps}"

        def on_step(step: int, x0: Float[Tensor, "b c t h w"]) -> None:
            nonlocal told
            if step != call.num_steps:
                preview(x0)
            if time.monotonic() - told >= _INTERVAL:
                tell(replace(result, status=f"step {step}{of_steps}", **shown))
                told = time.monotonic()

        call.make(on_step=on_step)
        tell(replace(result, status="done", video=call.files.videos[0], settings=call.files.settings))

    def _check_stopped(self) -> None:
        if self.is_stopped.is_set():
            raise StoppedError


def taken_by(model: DemoModel) -> Taken:
    """Return what a model takes of a form."""
    return Taken(model.takes_text, model.takes_image, model.classes, model.options, samplers())


@contextmanager
def checking(model: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` before each layer of a model: what it raises ends a step at once, which may take minutes."""
    hooks = [module.register_forward_pre_hook(lambda *_: check()) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield a list that collects this project's warnings in this thread."""
    found: list[str] = []
    thread = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                found.append(printable(record.getMessage()))

    handler, logger = Collector(logging.WARNING), logging.getLogger("vdm")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def _remove_record(call: SampleCall) -> None:
    """Remove the record of a call that made no video, and its folder."""
    with suppress(OSError):
        call.files.settings.unlink(missing_ok=True)
        call.files.settings.parent.rmdir()
