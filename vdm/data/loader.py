"""The loader: asks workers for batches in the order of positions and accounts for bad samples."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vdm.data.dataset import ClipDataset, LoadedBatch
from vdm.data.order import PADDING, MicroBatch, micro_batches
from vdm.data.outages import StorageFailedError
from vdm.data.quarantine import Quarantine
from vdm.types import ClipBatch

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What terminals and clusters send to all processes of a job, and only the training process is to heed."""


class TrainingPositions:
    """The endless positions of a rank's micro-batches, from the position at which the iteration begins.

    Args:
        start: Returns the first position not yet trained on, a multiple of ``global_batch_size``.
        global_batch_size: G, samples in one optimizer step.
        micro_batch_size: m, samples in one micro-batch at most.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, start: Callable[[], int], global_batch_size: int, micro_batch_size: int, rank: int, world_size: int
    ) -> None:
        self._start = start
        self._sizes = (global_batch_size, micro_batch_size, rank, world_size)

    def __iter__(self) -> Iterator[MicroBatch]:
        for step in count(self._start() // self._sizes[0]):
            yield from micro_batches(step, *self._sizes)


class ValidationPositions:
    """A rank's part of ``num_clips`` samples, spread evenly over a split; as many micro-batches on every rank.

    Args:
        samples_per_bucket: Number of samples of each bucket; the split lists them bucket by bucket.
        num_clips: How many of them to use.
        micro_batch_size: m, samples in one micro-batch at most; each is of one bucket.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, samples_per_bucket: Sequence[int], num_clips: int, micro_batch_size: int, rank: int, world_size: int
    ) -> None:
        num_samples = sum(samples_per_bucket)
        chosen = [slot * num_samples // num_clips for slot in range(num_clips)]
        self._batches: list[MicroBatch] = []
        end = 0
        for num_samples_of_bucket in samples_per_bucket:
            start, end = end, end + num_samples_of_bucket
            of_bucket = [position for position in chosen if start <= position < end]
            if of_bucket:
                for batch in micro_batches(0, len(of_bucket), micro_batch_size, rank, world_size):
                    positions = tuple(PADDING if slot == PADDING else of_bucket[slot] for slot in batch.positions)
                    self._batches.append(MicroBatch(positions, of_bucket[0]))

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class ClipLoader(Iterable[ClipBatch]):
    """Batches of clips in the order of ``positions``, without end and so without a length.

    Args:
        dataset: Loads the batch of a tuple of positions.
        positions: Positions of each batch.
        num_workers: Processes that load; 0 loads in this one.
        quarantine: Where bad samples go.
    """

    def __init__(
        self, dataset: ClipDataset, positions: Iterable[MicroBatch], num_workers: int, quarantine: Quarantine
    ) -> None:
        self._quarantine = quarantine
        self._batches: DataLoader[LoadedBatch | StorageFailedError] = DataLoader(
            _Loading(dataset),
            batch_size=None,
            sampler=positions,
            num_workers=num_workers,
            collate_fn=_as_loaded,  # pyright: ignore[reportArgumentType]  # torch types it for lists of samples
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=_start_method() if num_workers > 0 else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_WorkerSetUp() if num_workers > 0 else None,
        )
        self.seconds_waited = 0.0
        """Time that has been spent waiting for batches."""

    def __iter__(self) -> Iterator[ClipBatch]:
        with _signals_held():  # workers begin with them held, until they ignore them
            batches = iter(self._batches)
        while True:
            start = time.perf_counter()
            loaded = next(batches, None)
            self.seconds_waited += time.perf_counter() - start
            if loaded is None:
                return
            if isinstance(loaded, StorageFailedError):
                raise loaded
            batch, faults = loaded
            self._quarantine.record(sum(p != PADDING for p in batch.positions.tolist()), faults)
            yield batch

    def close(self) -> None:
        """End the workers; a new iteration starts new ones.

        Left to the garbage collector they may be waited for in vain, 5 seconds each.
        """
        workers = self._batches._iterator
        if isinstance(workers, _MultiProcessingDataLoaderIter):
            workers._shutdown_workers()
            for worker in workers._workers:
                worker.kill()  # of those that hang; they ignore what torch sends them
        self._batches._iterator = None


class _Loading(Dataset[LoadedBatch | StorageFailedError]):
    """Hands failed storage over to the training process; raised in a worker it would come with its traceback."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, batch: MicroBatch) -> LoadedBatch | StorageFailedError:
        try:
            return self._dataset[batch]
        except StorageFailedError as error:
            return error.with_traceback(None)


class FiniteClipLoader(ClipLoader):
    """Batches of clips that end: its ``positions`` have a length."""

    def __len__(self) -> int:
        return len(self._batches)


def _start_method() -> BaseContext:
    """Return the way to start workers: forked from a server that has done the imports, so they start within a second.

    Workers forked from the training process itself would inherit its threads' locks and clients of remote storage.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([ClipDataset.__module__])
    return context


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back from this thread, and from the processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        resource_tracker.ensure_running()  # the first process that is started, after which some are let through
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _WorkerSetUp:
    """Makes a worker ignore what is meant for the training process, and gives it that process's environment.

    The latter may have changed since the server was forked; clients of remote storage look there for credentials.
    """

    def __init__(self) -> None:
        self._variables = dict(os.environ)

    def __call__(self, worker: int) -> None:
        os.environ.update(self._variables)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _as_loaded(batch: LoadedBatch | StorageFailedError) -> LoadedBatch | StorageFailedError:
    return batch
