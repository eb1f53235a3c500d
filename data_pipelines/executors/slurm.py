"""Work in the tasks of a SLURM array, whose machines share the folders.

Outside of an array, the command submits itself as one. Every task of the array runs the same command, and the tasks
share the items through lock files: ``NAME.lock`` (see ``vdm.lock_files``) names the task that works on an item, and
each task updates a heartbeat every few seconds. When a task dies, another takes over its locks. So a death delays only
the items that the task was working on, and tasks may be requeued or added. An item at which a task died is retried by a
task that does nothing else meanwhile: an item that kills its task, for instance by exhausting the memory, then harms no
other item.
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
"""An item is given up when so many tasks have died at it; more than ``MAX_DEATHS``, as most die of other causes."""


class SlurmExecutor:
    """Submits a SLURM array, or does the work of one of its tasks.

    Args:
        num_tasks: Number of tasks of the array.
        cpus_per_task: Cores of each task, and its number of processes.
        sbatch: Further options for sbatch, e.g. ``["--partition=cpu", "--time=12:00:00", "--gpus=1"]``.
        alive_seconds: Interval of the heartbeat of a task.
        dead_seconds: A task counts as dead after so long without a heartbeat.
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
        self.task_name = f"{self.job}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def submit(self, log_folder: Path) -> str | None:
        """Submit this command as an array and return the answer of sbatch; inside of an array return None.

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
                safe = run_in_processes(work, self._locked_items(pending, locks, is_safe=True), processes)
                suspect = run_in_processes(work, self._locked_items(pending, locks, is_safe=False), 1)
                for name, fault in chain(safe, suspect):
                    self._mark_done(locks, name, fault)
                    del pending[name]
                    yield name, fault
                for name in [name for name in pending if self._is_done(locks, name)]:
                    del pending[name]
                    yield name, self._done_path(locks, name).read_text() or None
                if pending and not any(self._is_free(locks, name, self._holders(locks, name)) for name in pending):
                    time.sleep(self.alive_seconds / 2)

    def once(self, work: Callable[[], None], name: str, locks: Path) -> None:
        """See ``Executor.once``."""
        locks.mkdir(parents=True, exist_ok=True)
        with self._alive(locks):
            while not self._is_done(locks, name):
                if self._acquire(locks, name, self._holders(locks, name)):
                    work()
                    self._mark_done(locks, name, None)
                elif not self._is_done(locks, name):
                    time.sleep(self.alive_seconds / 2)

    def _locked_items(self, pending: Mapping[str, Item], locks: Path, is_safe: bool) -> Iterator[tuple[str, Item]]:
        """Yield items, each locked by this task just before; each task begins at another place of the list.

        With ``is_safe``, those at which no task of this array has died; without, those at which some have died.
        """
        names = list(pending)
        task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
        start = len(names) * task // max(self.num_tasks, task + 1)
        for name in [*names[start:], *names[:start]]:
            if self._is_done(locks, name):
                continue
            holders = self._holders(locks, name)
            num_dead = sum(holder.startswith(f"{self.job}-") for holder in {*holders} - {self.task_name})
            if (num_dead == 0) != is_safe or not self._acquire(locks, name, holders):
                continue
            if num_dead < MAX_DEAD_TASKS:
                yield name, pending[name]
            else:
                self._mark_done(locks, name, f"{num_dead} tasks of the array died while they were at it")

    def _acquire(self, locks: Path, name: str, holders: Sequence[str]) -> bool:
        """Lock an item unless it is done or the last of ``holders`` is alive; return whether this task has it now."""
        if not self._is_free(locks, name, holders) or not acquire(
            _lock_path(locks, name), len(holders), self.task_name
        ):
            return False
        return not self._is_done(locks, name)  # its last holder may have finished just before it ended

    @staticmethod
    def _holders(locks: Path, name: str) -> list[str]:
        """Return the names of the tasks that have locked an item; the last one holds it."""
        return lock_holders(_lock_path(locks, name))

    def _is_free(self, locks: Path, name: str, holders: Sequence[str]) -> bool:
        """Whether an item that is not done is locked by no task, or by a dead one."""
        if not holders or holders[-1] == self.task_name:  # this task has given it up before
            return True
        if not holders[-1]:  # damaged, or not written yet on storage without hard links
            return silence(lock_file(_lock_path(locks, name), len(holders) - 1)) > self.dead_seconds
        folder = locks if (locks / self._alive_name(self.task_name)).exists() else locks.parent
        try:
            now = (
                (folder / self._alive_name(self.task_name)).stat().st_mtime
            )  # by the clock of the storage, like theirs
            return now - (folder / self._alive_name(holders[-1])).stat().st_mtime > self.dead_seconds
        except FileNotFoundError:
            return True

    @contextmanager
    def _alive(self, folder: Path) -> Iterator[None]:
        """Update the heartbeat of this task while the block runs."""
        path = folder / self._alive_name(self.task_name)
        path.touch()
        try:
            with heartbeat(path, self.alive_seconds):
                yield
        finally:
            path.unlink(missing_ok=True)  # what this task leaves undone is free for others at once

    @staticmethod
    def _alive_name(holder: str) -> str:
        return f"{holder}.alive"

    def _done_path(self, locks: Path, name: str) -> Path:
        return locks / f"{name}.{self.job}.done"

    def _is_done(self, locks: Path, name: str) -> bool:
        return self._done_path(locks, name).exists()

    def _mark_done(self, locks: Path, name: str, fault: str | None) -> None:
        mine = locks / f".{name}.{self.task_name}"
        mine.write_text(fault or "")
        mine.replace(self._done_path(locks, name))


def _lock_path(locks: Path, name: str) -> Path:
    return locks / f"{name}.lock"
