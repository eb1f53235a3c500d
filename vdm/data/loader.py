"""The loader: requests batches from workers in the order of positions, and counts bad samples."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from vdm.data.dataset import ClipDataset
from vdm.data.delivery import Delivery, UndeliverableBatchError
from vdm.data.loader_workers import WorkerSetUp, faults_in_one_line, signals_held, start_method, try_semaphores
from vdm.data.order import PADDING, MicroBatch, micro_batches
from vdm.data.quarantine import Quarantine
from vdm.data.retries import StorageFailedError
from vdm.types import ClipBatch

Loaded = Delivery | StorageFailedError | UndeliverableBatchError


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
    """Endless batches of clips in the order of ``positions``.

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
        self._batches: DataLoader[Loaded] = DataLoader(
            _Loading(dataset),
            batch_size=None,
            sampler=positions,
            num_workers=num_workers,
            collate_fn=_as_loaded,  # pyright: ignore[reportArgumentType]  # torch types it for lists of samples
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=start_method(ClipDataset.__module__) if num_workers > 0 else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=WorkerSetUp() if num_workers > 0 else None,
        )
        self.seconds_waited = 0.0
        """Time that has been spent waiting for batches."""

    @property
    def num_bad(self) -> int:
        """How many samples could not be used so far."""
        return self._quarantine.num_bad

    def __iter__(self) -> Iterator[ClipBatch]:
        # Workers begin with signals held, until they ignore them.
        with self._faults_in_one_line(is_starting=True), signals_held():
            if self._batches.num_workers > 0:
                try_semaphores()
            batches = iter(self._batches)
        while True:
            start = time.perf_counter()
            with self._faults_in_one_line():
                loaded = next(batches, None)
                if isinstance(loaded, Exception):
                    raise loaded
            self.seconds_waited += time.perf_counter() - start
            if loaded is None:
                return
            self._quarantine.record(sum(p != PADDING for p in loaded.batch.positions.tolist()), loaded.faults)
            yield loaded.batch

    def close(self) -> None:
        """End the workers; a new iteration starts new ones.

        The garbage collector would end them too, but might wait 5 seconds for each.
        """
        batches = self._batches._iterator
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()
            for worker in batches._workers:
                worker.kill()  # workers that hang ignore the signal that torch sends
        self._batches._iterator = None

    def _faults_in_one_line(self, is_starting: bool = False) -> AbstractContextManager[None]:
        has_workers = self._batches.num_workers > 0
        return faults_in_one_line(lambda: self._workers, is_starting) if has_workers else nullcontext()

    @property
    def _workers(self) -> Sequence[BaseProcess]:
        """The loader processes that have been started."""
        batches = self._batches._iterator
        return batches._workers if isinstance(batches, _MultiProcessingDataLoaderIter) else ()


class _Loading(Dataset[Delivery | StorageFailedError]):
    """Returns an error of the storage to the training process; raised in a worker, it would print its traceback."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, batch: MicroBatch) -> Delivery | StorageFailedError:
        try:
            return Delivery(*self._dataset[batch])
        except StorageFailedError as error:
            return error.with_traceback(None)


class FiniteClipLoader(ClipLoader):
    """A finite sequence of batches: its ``positions`` have a length."""

    def __len__(self) -> int:
        return len(self._batches)


def _as_loaded(loaded: Loaded) -> Loaded:
    return loaded
