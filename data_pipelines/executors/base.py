"""Interface of an executor."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Executor(Protocol):
    """Does independent items of work, which leave their results on a disk that all processes share.

    A process that dies costs at most the items that it was working on; these are retried, or named as failed.
    """

    shares_folders: bool
    """Whether other processes run the same command on the same folders at the same time."""

    def submit(self, log_folder: Path) -> str | None:
        """Submit the whole command to a cluster, if this executor does so.

        Args:
            log_folder: Folder for the output of the submitted command.

        Returns:
            A message for the user if the command was submitted; None if it goes on in this process.
        """
        ...

    def run(
        self, work: Callable[[Item], None], items: Mapping[str, Item], locks: Path
    ) -> Iterator[tuple[str, str | None]]:
        """Call ``work`` with every item; yield the names of items as they are done, here or by another process.

        Args:
            work: Importable by its name, and idempotent. Raises ``UnavailableError`` if the item should be tried again
                in the next run; other exceptions end this run.
            items: Picklable values by names that identify the work: the same in all processes and all runs.
            locks: Folder for lock files, by which processes share the items; it need not exist.

        Yields:
            The name of an item, and None or in one line why it could not be done.
        """
        ...

    def once(self, work: Callable[[], None], name: str, locks: Path) -> None:
        """Call ``work`` in one of the processes that run this command; return in all of them when it is done.

        Args:
            work: Idempotent; it may be called twice, one time after the other.
            name: Identifies the work; see ``run``.
            locks: See ``run``.
        """
        ...


MAX_DEATHS = 2
"""An item is given up when so many processes have died at it."""
