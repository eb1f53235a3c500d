"""Work in the tasks of a SLURM array, whose machines share the folders.

Run outside of an array, the command submits itself as one. Each task of the array runs the same command; the tasks
agree through files who does what: a claim on ``NAME.claim`` (see ``vdm.lock_files``) names its owner, who shows every
few seconds that it is alive. When an owner dies, another task locks its items. So a death delays only the items that
it was working on, and tasks may be requeued or added. An item at which a task died is retried by a task that does
nothing else meanwhile: an item that kills its task, for instance by using up the memory, then harms no other item.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated

from annotated_types import Interval, Len

from data_pipelines.executors.base import Item
from data_pipelines.executors.local import run_in_processes
from data_pipelines.workers import num_cores
from vdm.lock_files import acquire, heartbeat, lock_file, lock_holders, silence
from vdm.ranges import Seconds, Size, Text

MAX_DEAD_TASKS = 3
"""Tasks that may die at an item before it is given up; more than ``MAX_DEATHS``, as most die of other causes."""


class SlurmExecutor:
    """One task of a SLURM array, or what submits the array.

    Args:
        num_tasks: Tasks of the array.
        cpus_per_task: Cores of each, and its processes.
        sbatch: Further options for sbatch, e.g. ``["--partition=cpu", "--time=12:00:00", "--gpus=1"]``.
        alive_seconds: How often a task shows that it is alive.
        dead_seconds: After which silence it counts as dead.
    """

    shares_folders = True

    def __init__(
        self,
        num_tasks: Size = 8,
        cpus_per_task: Annotated[int, Interval(ge=1, le=1024)] = 4,
        sbatch: Annotated[Sequence[Text], Len(0, 1000)] = (),
        alive_seconds: Seconds = 5.0,
        dead_seconds: Seconds = 60.0,
    ) -> None:
        if dead_seconds <= 2 * alive_seconds:
            raise ValueError(f"dead_seconds={dead_seconds}: must be more than twice alive_seconds={alive_seconds}")
        self.num_tasks, self.cpus_per_task, self.sbatch = num_tasks, cpus_per_task, tuple(sbatch)
        self.alive_seconds, self.dead_seconds = alive_seconds, dead_seconds
        self.job = os.environ.get("SLURM_ARRAY_JOB_ID", "none")
        self.owner = f"{self.job}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def submit(self, log_folder: Path) -> str | None:
        """Submit this very command as an array, and return what sbatch says; None inside of an array.

        Raises:
            ValueError: In one line, if there is no sbatch, or it refuses.
        """
        if "SLURM_ARRAY_TASK_ID" in os.environ:
            return None
        log_folder.mkdir(parents=True, exist_ok=True)
        command = shlex.join([sys.executable, "-m", "data_pipelines.cli", *sys.argv[1:]])
        options = [
            f"--array=0-{self.num_tasks - 1}",
            f"--cpus-per-task={self.cpus_per_task}",
            "--job-name=vdm-data",
            f"--output={log_folder}/%A_%a.log",
            "--requeue",
            *self.sbatch,
        ]
        try:
            done = subprocess.run(["sbatch", *options, f"--wrap={command}"], capture_output=True, text=True)
        except FileNotFoundError:
            raise ValueError("executor=slurm: there is no sbatch here; run it where jobs are submitted") from None
        if done.returncode:
            raise ValueError(f"executor=slurm: sbatch refused: {' '.join(done.stderr.split())}")
        return done.stdout.strip()

    def run(
        self, work: Callable[[Item], None], items: Mapping[str, Item], locks: Path
    ) -> Iterator[tuple[str, str | None]]:
        """See ``Executor.run``: returns when all items are done, by whichever task."""
        locks.mkdir(parents=True, exist_ok=True)
        pending = dict(items)
        processes = min(self.cpus_per_task, num_cores())
        with self._alive(locks.parent):
            while pending:
                safe = run_in_processes(work, self._claimed(pending, locks, is_safe=True), processes)
                suspect = run_in_processes(work, self._claimed(pending, locks, is_safe=False), 1)
                for name, fault in chain(safe, suspect):
                    self._mark_done(locks, name, fault)
                    del pending[name]
                    yield name, fault
                for name in [name for name in pending if self._is_done(locks, name)]:
                    del pending[name]
                    yield name, self._done_path(locks, name).read_text() or None
                if pending and not any(self._is_free(locks, name, self._owners(locks, name)) for name in pending):
                    time.sleep(self.alive_seconds / 2)

    def once(self, work: Callable[[], None], name: str, locks: Path) -> None:
        """See ``Executor.once``."""
        locks.mkdir(parents=True, exist_ok=True)
        with self._alive(locks):
            while not self._is_done(locks, name):
                if self._claim(locks, name, self._owners(locks, name)):
                    work()
                    self._mark_done(locks, name, None)
                elif not self._is_done(locks, name):
                    time.sleep(self.alive_seconds / 2)

    def _claimed(self, pending: Mapping[str, Item], locks: Path, is_safe: bool) -> Iterator[tuple[str, Item]]:
        """Yield items as this task locks them, each just before it is worked on, beginning at a place of its own.

        Either those at which no task of this array has died, or those at which some have, but not too many.
        """
        names = list(pending)
        task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
        start = len(names) * task // max(self.num_tasks, task + 1)
        for name in [*names[start:], *names[:start]]:
            if self._is_done(locks, name):
                continue
            owners = self._owners(locks, name)
            num_dead = sum(owner.startswith(f"{self.job}-") for owner in {*owners} - {self.owner})
            if (num_dead == 0) != is_safe or not self._claim(locks, name, owners):
                continue
            if num_dead < MAX_DEAD_TASKS:
                yield name, pending[name]
            else:
                self._mark_done(locks, name, f"{num_dead} tasks of the array died while they were at it")

    def _claim(self, locks: Path, name: str, owners: Sequence[str]) -> bool:
        """Become the owner of an item that is to be done, after ``owners``, if none of them lives."""
        if not self._is_free(locks, name, owners) or not acquire(_claims_on(locks, name), len(owners), self.owner):
            return False
        return not self._is_done(locks, name)  # an owner that is gone may have been done just before

    @staticmethod
    def _owners(locks: Path, name: str) -> list[str]:
        """Return who claimed an item, the last of whom has it."""
        return lock_holders(_claims_on(locks, name))

    def _is_free(self, locks: Path, name: str, owners: Sequence[str]) -> bool:
        """Whether an item that is not done is claimed by nobody, or by the dead."""
        if not owners or owners[-1] == self.owner:  # of mine, and not done: I have given it up
            return True
        if not owners[-1]:  # damaged, or made a moment ago where there are no hard links
            return silence(lock_file(_claims_on(locks, name), len(owners) - 1)) > self.dead_seconds
        folder = locks if (locks / self._alive_name(self.owner)).exists() else locks.parent
        try:
            now = (folder / self._alive_name(self.owner)).stat().st_mtime  # by the clock of the storage, as theirs
            return now - (folder / self._alive_name(owners[-1])).stat().st_mtime > self.dead_seconds
        except FileNotFoundError:
            return True

    @contextmanager
    def _alive(self, folder: Path) -> Iterator[None]:
        """Show that this task is alive while the block runs."""
        path = folder / self._alive_name(self.owner)
        path.touch()
        try:
            with heartbeat(path, self.alive_seconds):
                yield
        finally:
            path.unlink(missing_ok=True)  # nothing is left undone, or it is free for others at once

    @staticmethod
    def _alive_name(owner: str) -> str:
        return f"{owner}.alive"

    def _done_path(self, locks: Path, name: str) -> Path:
        return locks / f"{name}.{self.job}.done"

    def _is_done(self, locks: Path, name: str) -> bool:
        return self._done_path(locks, name).exists()

    def _mark_done(self, locks: Path, name: str, fault: str | None) -> None:
        mine = locks / f".{name}.{self.owner}"
        mine.write_text(fault or "")
        mine.replace(self._done_path(locks, name))


def _claims_on(locks: Path, name: str) -> Path:
    return locks / f"{name}.claim"
