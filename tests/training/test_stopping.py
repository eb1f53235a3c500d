"""Training that gets a signal, in the test's own process."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.training.runs import configuration
from tests.training.test_resume import tensors_of
from vdm.checkpoints.layout import checkpoints_of
from vdm.training.callbacks.stopping import StopOnSignal
from vdm.training.training_run import TrainingRun, build_training


@pytest.fixture(scope="module", autouse=True)
def lost_terminals_end_processes() -> Iterator[None]:
    """Have SIGHUP mean what it usually does, here and in processes that are started, though nohup runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Send(Callback):
    """Sends this process a signal in one of the trainer's hooks, once."""

    def __init__(self, number: int, hook: str, step: int) -> None:
        def send(trainer: lightning.Trainer, *args: object, **kwargs: object) -> None:
            if trainer.global_step == step and not self.sent:
                self.sent = True
                # To this thread alone: of threads that earlier tests left behind, one might not hold it back.
                signal.pthread_kill(threading.get_ident(), number)

        self.sent = False
        setattr(self, hook, send)


def interrupted(run: Path, config: dict[str, Any], *callbacks: Callback) -> TrainingRun:
    """Train with callbacks that come before all others."""
    training = build_training(config, run)
    training.trainer.callbacks[:0] = callbacks
    training.record()
    training.fit(run if checkpoints_of(run) else None)
    return training


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_training_with_a_checkpoint_after_the_step(tmp_path: Path, shards: Path, number: int) -> None:
    config = configuration(shards, "trainer.max_steps=3")

    training = interrupted(tmp_path, config, Send(number, "on_train_batch_start", step=1))

    assert (training.stop.stopped, training.stop.received) == (True, number)
    assert [folder.name for folder in checkpoints_of(tmp_path)] == ["step=00000002"]


def test_lost_terminal_does_not_end_a_run_that_ignores_it_from_the_start(tmp_path: Path, shards: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        send = Send(signal.SIGHUP, "on_train_batch_start", step=1)
        training = interrupted(tmp_path, configuration(shards, "trainer.max_steps=3"), send)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert (training.stop.stopped, training.trainer.global_step) == (False, 3)


def test_signal_before_the_first_step_ends_the_run_before_it(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=3")
    # Held back since the process began: as SLURM's signals are until training heeds them.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    training = interrupted(tmp_path, config, Send(signal.SIGUSR1, "setup", step=0))

    assert training.stop.stopped
    assert training.trainer.global_step == 0
    assert checkpoints_of(tmp_path) == []


def test_signal_in_validation_breaks_it_off_and_nothing_false_is_logged(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=3", "validate.every_steps=2", "save.keep.best=1")

    training = interrupted(tmp_path, config, Send(signal.SIGUSR1, "on_validation_start", step=2))

    assert training.trainer.global_step == 2
    assert "val/loss" not in training.module.scalars
    assert [folder.name for folder in checkpoints_of(tmp_path)] == ["step=00000002"]


def test_run_stopped_in_validation_goes_on_as_if_it_had_not_been(tmp_path: Path, shards: Path) -> None:
    config = configuration(shards, "trainer.max_steps=3", "validate.every_steps=2")
    interrupted(tmp_path / "whole", config)
    interrupted(tmp_path / "parts", config, Send(signal.SIGTERM, "on_validation_start", step=2))
    interrupted(tmp_path / "parts", config)

    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=0, msg=name)


def test_second_signal_of_the_cluster_does_not_tear_what_the_first_began() -> None:
    stop = StopOnSignal()
    stop._note(signal.SIGUSR1, None)
    stop._note(signal.SIGTERM, None)
    assert stop.received == signal.SIGUSR1


@pytest.mark.parametrize("earlier", [[], [signal.SIGUSR1]])
def test_second_ctrl_c_ends_at_once_and_an_echo_of_the_first_does_not(
    earlier: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, now = StopOnSignal(), 100.0
    monkeypatch.setattr("vdm.training.callbacks.stopping.time.monotonic", lambda: now)
    for number in (*earlier, signal.SIGINT):
        stop._note(number, None)
    now = 100.05  # a terminal and a wrapper send one Ctrl-C both
    stop._note(signal.SIGINT, None)
    now = 101.0
    with pytest.raises(KeyboardInterrupt):
        stop._note(signal.SIGINT, None)
