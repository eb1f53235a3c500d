"""What work asks of the place where it is done."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Executor(Protocol):
    """Does pieces of work that know nothing of each other, and leave their results on a disk that all processes share.

    Whatever dies in the middle costs at most the pieces it was at; these are done again, or named.
    """

    shares_folders: bool
    """Whether other processes run the same command on the same folders at the same time."""

    def submit(self, log_folder: Path) -> str | None:
        """Hand the whole command over to where it is to run, if that is elsewhere.

        Args:
            log_folder: Where its output goes then.

        Returns:
            What to tell the user, or None if the command is to go on here.
        """
        ...

    def run(
        self, work: Callable[[Item], None], items: Mapping[str, Item], locks: Path
    ) -> Iterator[tuple[str, str | None]]:
        """Do ``work`` on every item; yield their names as they are done, here or by another process.

        Args:
            work: Importable by its name, as are items. Doing it twice does no harm. Raises ``UnavailableError`` for
                what is worth another try next time; other exceptions end the run.
            items: By names that tell the same work from other work, in all processes and all runs alike.
            locks: Folder in which processes may agree on who does what; it need not exist.

        Yields:
            The item's name, and None or in one line why it could not be done.
        """
        ...

    def once(self, work: Callable[[], None], name: str, locks: Path) -> None:
        """Do ``work`` in one of the processes that run this command, and go on in all of them when it is done.

        Args:
            work: Done here; doing it twice, one time after the other, does no harm.
            name: Tells it from other work; see ``run``.
            locks: See ``run``.
        """
        ...


MAX_DEATHS = 2
"""Processes that an item may cost before it is given up."""
