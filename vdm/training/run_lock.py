"""The lock on a run's folder, held by the first process of one start of ``vdm train`` at a time.

The end or death of the process releases the lock. For a process on another machine, or in another container, only the
time at which it last touched its lock file is known.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vdm.config import ConfigError
from vdm.files import replacing
from vdm.lock_files import LockHolder, acquire, heartbeat, lock_file, lock_holders, silence
from vdm.regular_files import read_limited
from vdm.training.slurm import SlurmJob
from vdm.training.starts import shared_name

LOCKS_NAME = "locks"
"""Folder, within a run's folder, of the lock files of its starts."""
_OLD_LOCKS_NAME = "claims"
"""Name of that folder in runs of earlier versions, which keep it: a process of such a version may hold the lock."""

BEAT_SECONDS = 10.0
"""How often a run shows that it is alive."""
SILENT_SECONDS = 120.0
"""A run on another machine counts as dead after this time without a sign of life."""
_MAX_DIGITS = 10
"""Digits of a lock file's number, at most."""
_MAX_LOCK_BYTES = 1 << 16


class RunLock:
    """The lock of this process on a run's folder.

    Args:
        run: Folder of the run.
        number: Number of the lock file: how many processes held the lock before.
        holder: This process.
    """

    def __init__(self, run: Path, number: int, holder: LockHolder) -> None:
        self.run, self.number, self.holder = run, number, holder
        self._text = holder.text()
        self.file = lock_file(_locks_of(run), number)

    @property
    def before(self) -> float | None:
        """Unix seconds of the last sign of life of the process that held the lock before; ``None`` if there is none."""
        try:
            return lock_file(_locks_of(self.run), self.number - 1).stat().st_mtime
        except OSError:
            return None

    def check(self) -> None:
        """Refuse to write into a run's folder whose lock this process has lost.

        Raises:
            ValueError: In one line, if the folder is gone, or another process has taken the run over.
        """
        if not self._is_there():
            raise ValueError(
                f"{self.run}: the run's folder is not there any more, renamed or removed while the run went on: what"
                " was trained since the latest checkpoint is not saved; where that is now, resume=FOLDER goes on"
            )
        later = lock_holders(_locks_of(self.run))[self.number + 1 :]
        if later:
            raise ValueError(
                f"{self.run}: {LockHolder.read(later[-1]) or 'another process'} has taken the run over, since this one"
                f" showed no sign of life for {SILENT_SECONDS:.0f} s; this one saves nothing more, and ends"
            )

    def _is_there(self) -> bool:
        try:
            return self.file.read_text(encoding="utf-8") == self._text
        except (FileNotFoundError, NotADirectoryError):
            return False

    def release(self) -> None:
        """Release the lock, if this process still holds it."""
        try:
            self.check()
            with replacing(self.file) as file:
                file.write(self.holder.ending().encode())
        except (OSError, ValueError):  # then the end of this process releases it
            pass


@contextmanager
def lock_run(run: Path) -> Iterator[RunLock]:
    """Hold the lock on a run's folder while the block runs.

    Raises:
        ConfigError: If another process holds it.
        ValueError: If the folder was removed or taken over, and storage fails in it for that reason.
    """
    me = _this_process()
    path = _locks_of(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        before = lock_holders(path)
        _refuse_if_held(run, before, me)
        if acquire(path, len(before), me.text(), durable=True):
            break
    mine = RunLock(run, len(before), me)
    with heartbeat(mine.file, BEAT_SECONDS):
        try:
            yield mine
        except OSError:
            mine.check()  # gives the reason if the folder is gone
            raise
        finally:
            mine.release()


@dataclass(frozen=True)
class LockReading:
    """What the lock on a run's folder says of the latest start.

    Args:
        is_held: Whether its process lives.
        is_released: Whether its process ended in order, even if by an error; it was killed if neither holds.
        alive: Unix seconds of its last sign of life.
    """

    is_held: bool
    is_released: bool
    alive: float


def read_lock(run: Path) -> LockReading | None:
    """Read the lock on a run's folder, without taking it and without writing anything.

    The time without a sign of life is measured by this machine's clock, and not by that of the storage.

    Returns:
        ``None`` if no process has held the lock, or what is there can't be read.
    """
    path = _locks_of(run)
    try:
        names = [file.name.removeprefix(f"{path.name}.") for file in path.parent.iterdir()]
        numbers = [int(name) for name in names if name.isdecimal() and len(name) < _MAX_DIGITS]
        if not numbers:
            return None
        file = lock_file(path, max(numbers))
        holder = LockHolder.read(read_limited(file, _MAX_LOCK_BYTES).decode(errors="replace"))
        alive = file.stat().st_mtime
    except OSError:
        return None
    if holder is None:
        return None
    is_held = holder.is_alive(LockHolder.this_process(), time.time() - alive, SILENT_SECONDS)
    return LockReading(is_held, holder.ended is not None, alive)


def refuse_if_locked(run: Path, is_first: bool) -> None:
    """Refuse a run's folder that another start holds, before anything slow is done.

    Args:
        run: Folder of the run.
        is_first: Whether this process is the one that will take the lock.

    Raises:
        ConfigError: With the process that holds it.
    """
    me = _this_process()
    if is_first or me.job is not None:  # without a job, other processes can't tell their own start from another
        _refuse_if_held(run, lock_holders(_locks_of(run)), me, not is_first)


def _refuse_if_held(run: Path, before: list[str], me: LockHolder, is_own_start_allowed: bool = False) -> None:
    if not before:
        return
    path = lock_file(_locks_of(run), len(before) - 1)
    last, silent = LockHolder.read(before[-1]), silence(path)
    if last is None:  # damaged
        is_held, name = silent <= SILENT_SECONDS, f"locked by {path}, which can't be read"
    else:
        is_held = last.is_alive(me, silent, SILENT_SECONDS) and not (is_own_start_allowed and last.is_of_same_start(me))
        name = f"{last}, since {last.since}"
    if not is_held:
        return
    if last is None or not last.is_on_same_machine(me):
        name += (
            f"; last sign of life {max(silent, 0):.0f} s ago, and {SILENT_SECONDS:.0f} s without one free the folder"
        )
    raise ConfigError(
        f"{run}: a run is going on in this folder ({name}); wait for its end, or choose another folder by hydra.run.dir"
    )


def _this_process() -> LockHolder:
    job = SlurmJob.current()
    # One name for all processes and all starts of a job; torchrun inside a job would have a name of its own.
    try:
        name = shared_name() if job is None else f"slurm-{job.name}"
    except ConfigError:  # of torchrun's nodes, which have nothing in common but a folder that the user gave
        name = None
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return LockHolder.this_process(name, [0 if job is None else job.restarts, restarts])


def _locks_of(run: Path) -> Path:
    old = run / _OLD_LOCKS_NAME
    return (old if old.is_dir() else run / LOCKS_NAME) / "start"
