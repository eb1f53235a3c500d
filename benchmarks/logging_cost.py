"""What logging costs of a step: the time that training spends in it, as a share of the time of all steps.

    python benchmarks/logging_cost.py SHARDS

Trains the model of the demo on moving digits with everything that is logged by default, each logger in turn, and adds
up the time inside the callbacks that log. Loggers work in threads of their own; what they take from training by using
its cores is in the second figure: the time of a step with logging over one without, median of pairs in one process.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.trainer import configuration

NUM_STEPS = 150
"""Steps of a run; figures are logged every 50, as by default."""
NUM_PAIRS = 3


def main() -> None:
    """Print a table."""
    if len(sys.argv) < 2:
        print("not measured: name a set of shards, such as data/moving_digits")
        return
    print("| logger | inside of logging, share of all steps | step with logging / without |\n| --- | --- | --- |")
    for logger in ("csv", "tensorboard", "wandb"):
        shares, ratios = [], []
        for _ in range(NUM_PAIRS):
            seconds, inside = measured(sys.argv[1], f"logger={logger}")
            without, _ = measured(sys.argv[1], "logger=none", "callbacks.metrics=null")
            shares.append(inside / seconds)
            ratios.append(seconds / without)
        print(f"| {logger} | {statistics.median(shares):.2%} | {statistics.median(ratios):.3f} |", flush=True)


def measured(shards: str, *overrides: str) -> tuple[float, float]:
    """Train; return the seconds of the steps after the first, and those of them spent in logging."""
    from lightning.pytorch.callbacks import LambdaCallback

    from vdm.training.callbacks.metrics import LogMetrics
    from vdm.training.training_run import build_training

    options = ("trainer.log_every_n_steps=50", f"trainer.max_steps={NUM_STEPS}", *overrides)
    config = configuration(shards, *(option for option in options))
    spent, ends = [0.0], list[float]()
    with tempfile.TemporaryDirectory() as folder, timed((LogMetrics,), spent):
        training = build_training(config, Path(folder))
        training.record()

        def note(*_: object) -> None:
            if not ends:
                spent[0] = 0.0  # the first step also opens the loggers
            ends.append(time.perf_counter())

        training.trainer.callbacks.append(LambdaCallback(on_train_batch_end=note))  # type: ignore[attr-defined]
        training.fit()
    return ends[-1] - ends[0], spent[0]


@contextmanager
def timed(classes: tuple[type, ...], spent: list[float]) -> Iterator[None]:
    """Add up the time in the hooks of callbacks."""

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                spent[0] += time.perf_counter() - start

        return call

    hooks = ("on_train_batch_end", "on_before_optimizer_step")
    patches = [
        mock.patch.object(one, name, wrapped(getattr(one, name)))
        for one in classes
        for name in hooks
        if name in vars(one)
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


if __name__ == "__main__":
    main()
