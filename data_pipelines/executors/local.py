"""Work on the cores of this machine."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from data_pipelines.executors.base import MAX_DEATHS, Item
from data_pipelines.sources import UnavailableError
from data_pipelines.workers import WorkerDiedError, map_in_processes
from vdm.ranges import NumProcesses


class LocalExecutor:
    """Processes of this machine. An item at which a process dies is tried once more by another process.

    Args:
        num_workers: Number of processes; None is one per core, 0 works in this process.
    """

    shares_folders = False

    def __init__(self, num_workers: NumProcesses | None = None) -> None:
        self.num_workers = num_workers

    def submit(self, log_folder: Path) -> str | None:
        """See ``Executor.submit``: nothing is submitted."""
        return None

    def run(
        self, work: Callable[[Item], None], items: Mapping[str, Item], locks: Path
    ) -> Iterator[tuple[str, str | None]]:
        """See ``Executor.run``."""
        yield from run_in_processes(work, items.items(), self.num_workers)

    def once(self, work: Callable[[], None], name: str, locks: Path) -> None:
        """See ``Executor.once``."""
        work()


def run_in_processes(
    work: Callable[[Item], None], items: Iterable[tuple[str, Item]], num_workers: int | None
) -> Iterator[tuple[str, str | None]]:
    """Call ``work`` with named items, taken one at a time when a process is free; see ``Executor.run``."""
    for death in range(1, MAX_DEATHS + 1):
        died: list[tuple[str, Item]] = []
        for (name, item), result in map_in_processes(partial(do, work), items, num_workers):
            if not isinstance(result, WorkerDiedError):
                yield name, result
            elif death == MAX_DEATHS:
                yield name, str(result)
            else:
                died.append((name, item))
        if not died:
            return
        items = died


def do(work: Callable[[Item], None], named: tuple[str, Item]) -> str | None:
    """Call ``work`` with one item; return why it should be tried again in the next run, or None."""
    try:
        work(named[1])
    except UnavailableError as error:
        return str(error)
    return None
