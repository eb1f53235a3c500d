"""Saving in the background, while training continues."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdm.checkpoints.collectives import all_gather, rank, run_on_all
from vdm.checkpoints.folder import abandon_folder, begin_folder, finish_folder
from vdm.checkpoints.pieces import Piece
from vdm.checkpoints.snapshot import Snapshot


class CheckpointWriter:
    """Writes snapshots to disk in the background, one at a time.

    All processes call the same methods in the same order. A thread in each process writes and flushes its files; the
    folder gets its final name once all threads are done, in the next call of ``poll`` or ``finish``.

    Args:
        after: Another writer, whose folder in progress is completed before a folder of this one.
        check: Called in each process before anything is written; raises ``ValueError`` if writing is not allowed.
    """

    def __init__(self, after: "CheckpointWriter | None" = None, check: Callable[[], None] = lambda: None) -> None:
        self._after, self._check = after, check
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.on_complete: Callable[[Path], object] = lambda folder: None
        """Called in each process with the folder of a checkpoint that is complete."""
        self.seconds_waited = 0.0
        """How long training has waited for copies to memory, and for the disk."""
        self._folder: Path | None = None
        self._snapshot: Snapshot | None = None
        self._written: Future[dict[str, dict[str, Any]]]

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is in progress; the same in all processes."""
        return self._folder is not None

    def start(
        self,
        folder: Path,
        pieces: Mapping[str, Mapping[str, Piece]],
        state: Mapping[str, Any] | None,
        frozen: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy the pieces to memory, and begin to write them.

        Args:
            folder: Folder of the checkpoint.
            pieces: This process's pieces of tensors by kind and name.
            state: The rest of the checkpoint, in the first process.
            frozen: Reference to the weights that are not trained, in the first process, if there are any.

        Raises:
            ValueError: If storage fails, ``state`` holds a value that can't be saved, or ``check`` raises it.
        """
        assert self._folder is None, "finish() the one before"
        with self._waiting():
            run_on_all(self._check)
            self._snapshot = Snapshot.take(pieces, state, self._snapshot, frozen)
            partials = _run_on_all_for(folder, lambda: begin_folder(folder) if rank() == 0 else None)
        assert partials[0] is not None
        self._folder = folder
        self._written = self._thread.submit(self._snapshot.write, partials[0], rank())

    def poll(self) -> Path | None:
        """Complete a checkpoint whose files are all written, and return its folder, if any; does not wait.

        Raises:
            ValueError: If it could not be written.
        """
        if self._folder is None or not all(all_gather(self._is_written())):
            return None
        return self.finish()

    def finish(self) -> Path | None:
        """Wait for the checkpoint in progress, if any, and return its folder.

        Raises:
            ValueError: If it could not be written. Earlier checkpoints are unchanged.
        """
        if self._folder is None:
            return None
        with self._waiting():
            return self._finish(self._folder)

    def _finish(self, folder: Path) -> Path:
        if self._after is not None:
            self._after.finish()
        self._folder = None
        run_on_all(self._check)
        try:
            described = _run_on_all_for(folder, self._written.result)
            files = {name: description for files in described for name, description in files.items()}
            _run_on_all_for(folder, lambda: finish_folder(folder, files) if rank() == 0 else None)
        except ValueError:
            if rank() == 0:
                abandon_folder(folder)
            raise
        self.on_complete(folder)
        return folder

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds_waited += time.perf_counter() - start

    def _is_written(self) -> bool:
        """Whether this process has written everything, also of the writer that comes first."""
        is_done = self._folder is None or self._written.done()
        return is_done and (self._after is None or self._after._is_written())


def _run_on_all_for(folder: Path, action: Any) -> list[Any]:
    try:
        return run_on_all(action)
    except ValueError as error:
        raise ValueError(f"{folder}: can't be saved: {error}; checkpoints saved before are whole") from None
