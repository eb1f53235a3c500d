"""Kills training at random moments and resumes it, until it is done; what is left equals a run that was left alone.

Processes are real, so are signals, and both go through the console script's entry point; only imports are done once
for all, see ``zygote.py``.
"""

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from tests.training.runs import TINY
from tests.training.zygote import Zygote
from vdm.checkpoints.collectives import all_gather
from vdm.checkpoints.latest import latest_checkpoint
from vdm.checkpoints.snapshot import SavedCheckpoint
from vdm.types import ClipBatch

GLOBAL_BATCH = 6
STEPS = 24
OPTIONS = (
    f"trainer.max_steps={STEPS}",
    f"data.global_batch_size={GLOBAL_BATCH}",
    "data.micro_batch_size=2",
    "save.every_steps=3",
    "validate.every_steps=4",
    "save.keep.last=2",
    "watchdog.minutes=3",
    "+callbacks.record._target_=tests.training.chaos.RecordSamples",
)


class RecordSamples(Callback):
    """Remembers which samples each step was made of; saved with the weights, it tells what made them.

    Also writes what the process is about into a file beside the run, so that a signal can be aimed at it.
    """

    def __init__(self) -> None:
        self.committed: list[list[Any]] = []
        self.samples: list[list[Any]] = []

    def on_train_start(self, trainer: lightning.Trainer, *args: object) -> None:
        self.step = trainer.global_step
        _note("training", trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: object, outputs: object, batch: ClipBatch, index: int
    ) -> None:
        self.samples += [
            [position, key]
            for position, key, weight in zip(batch.positions.tolist(), batch.keys, batch.weights.tolist(), strict=True)
            if weight > 0
        ]
        if trainer.global_step > self.step:
            everyone = [sample for samples in all_gather(self.samples) for sample in samples]
            self.committed.append([trainer.global_step, *sorted(everyone)])
            self.step, self.samples = trainer.global_step, []
            _note("training", trainer)

    def on_validation_start(self, trainer: lightning.Trainer, *args: object) -> None:
        _note("validation", trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"committed": self.committed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.committed = list(state_dict["committed"])


def _note(phase: str, trainer: lightning.Trainer) -> None:
    if trainer.is_global_zero:
        (Path(trainer.default_root_dir) / "phase").write_text(f"{phase} {trainer.global_step}")


@dataclass
class Case:
    """A strategy on so many processes, and what has been done to it."""

    strategy: str
    num_ranks: int
    shards: Path
    folder: Path
    zygote: Zygote
    random: random.Random
    options: tuple[str, ...] = (*TINY, *OPTIONS)
    kills: dict[str, int] = field(default_factory=dict)
    """How many processes groups got a signal, by signal and moment."""
    attempts: int = 0
    last_kill: str = ""

    def arguments(self, run: Path, num_workers: int) -> list[str]:
        workers = f"data.num_workers={num_workers}"
        if (run / "checkpoints").is_dir() and any((run / "checkpoints").glob("step=*")):
            return ["train", f"resume={run}", workers]
        placement = (f"strategy={self.strategy}", f"trainer.devices={self.num_ranks}")
        return ["train", f"data.path={self.shards}", *self.options, *placement, workers, f"hydra.run.dir={run}"]

    def start(self, run: Path, num_workers: int = 0) -> list[int]:
        self.attempts += 1
        return self.zygote.start_ranks(
            self.arguments(run, num_workers), self.num_ranks, self.folder / f"{run.name}.log"
        )

    def run_alone(self) -> Path:
        """Train without interruption."""
        run = self.folder / "alone"
        assert self.zygote.wait(self.start(run), timeout=240) == [0] * self.num_ranks, self.log(run)
        return run

    def run_under_fire(self, name: str, num_kills: int) -> tuple[Path, int]:
        """Train, kill, resume, and so on, up to so many times; return the run, and how often it was killed."""
        run = self.folder / name
        num_done = 0
        while True:
            pids = self.start(run, num_workers=self.random.choice((0, 0, 1)))
            if num_done == num_kills:
                codes = self.zygote.wait(pids, timeout=240)
                assert codes == [0] * self.num_ranks, self.log(run)
                return run, num_done
            if not self._wait_for_moment(run, pids):
                return run, num_done  # it was done before
            num_done += 1
            try:
                self.zygote.wait(pids, timeout=60)
            except TimeoutError as error:
                raise AssertionError(f"{self.last_kill}: {error}; {self.log(run)}") from error

    def _wait_for_moment(self, run: Path, pids: list[int]) -> bool:
        """Wait for a random moment of a random kind and send a random signal; tell whether there was one to be hit."""
        moment = self.random.choice(("start-up", "step", "validation", "saving", "saving"))
        begin, delay, step = time.monotonic(), self.random.random(), self.random.randrange(1, 6)
        phase = run / "phase"
        phase.unlink(missing_ok=True)
        seen: set[str] = set()
        while True:
            if all(self.zygote.poll(pid) is not None for pid in pids):
                codes = self.zygote.wait(pids, timeout=1)
                assert codes == [0] * self.num_ranks, self.log(run)
                return False
            text = phase.read_text() if phase.exists() else ""
            seen.add(text)
            if moment == "start-up":
                hit = time.monotonic() - begin > 4 * delay
            elif moment == "step":
                hit = text.startswith("training") and len(seen) > step
            elif moment == "validation":
                hit = text.startswith("validation")
            else:
                hit = text != "" and any((run / "checkpoints").glob(".*.partial"))
            if hit:
                break
            time.sleep(0.002)
        time.sleep(delay * (0.05 if moment == "step" else 0.02))
        self._fire(moment, pids)
        return True

    def _fire(self, moment: str, pids: list[int]) -> None:
        """Kill all processes, or tell one or all of them to end, as a scheduler does."""
        kind = self.random.choice(("SIGKILL", "SIGKILL of one", "SIGTERM", "SIGTERM of one"))
        # Before processes know each other, nobody but who started them can end them all.
        targets = [self.random.choice(pids)] if kind.endswith("one") and moment != "start-up" else pids
        for pid in targets:
            if self.zygote.poll(pid) is None:
                os.kill(pid, signal.Signals[kind.split()[0]])
        self.last_kill = f"{kind} ({targets} of {pids}), {moment}"
        self.kills[f"{kind}, {moment}"] = self.kills.get(f"{kind}, {moment}", 0) + 1

    def log(self, run: Path) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob(f"{run.name}*.log")))


def committed(run: Path) -> list[Any]:
    """Return what each step of a run was made of."""
    callbacks = SavedCheckpoint(latest_checkpoint(run)).state()["callbacks"]
    return next(state["committed"] for key, state in callbacks.items() if key.startswith("RecordSamples"))


def assert_same_model(found: Path, expected: Path) -> None:
    """Compare weights, averages and moments bit for bit, and the samples that made them."""
    checkpoints = [SavedCheckpoint(latest_checkpoint(run)) for run in (found, expected)]
    assert checkpoints[0].folder.name == checkpoints[1].folder.name == f"step={STEPS:08d}"
    for kind in ("weights", "ema", "optimizer"):
        ours, theirs = (getattr(checkpoint, kind) for checkpoint in checkpoints)
        assert ours.shapes == theirs.shapes
        for name in ours.shapes:
            assert torch.equal(ours.whole(name), theirs.whole(name)), f"{kind} {name} of {found}"
    assert committed(found) == committed(expected)


def assert_each_position_once(run: Path) -> None:
    """Check the record of an uninterrupted run against the order that positions have by themselves."""
    record = committed(run)
    assert [step for step, *_ in record] == list(range(1, STEPS + 1))
    positions = [position for _, *samples in record for position, _ in samples]
    assert positions == list(range(STEPS * GLOBAL_BATCH))


def summary(cases: list[Case]) -> str:
    """Return how often each case was hit, as JSON."""
    return json.dumps({f"{case.strategy} on {case.num_ranks}": case.kills for case in cases}, indent=1, sort_keys=True)
