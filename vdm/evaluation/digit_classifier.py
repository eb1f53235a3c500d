"""A classifier of moving digits, trained when it is first used, the same in every process."""

import logging
from collections.abc import Iterator
from functools import cached_property
from itertools import count

import torch

from vdm import randomness
from vdm.data.datamodule import ClipDataModule
from vdm.data.order import MicroBatch
from vdm.evaluation.moving_digits import LABEL_NAMES, DigitClassifier, train_classifier
from vdm.types import ClipBatch

_log = logging.getLogger(__name__)
_BATCH_SIZE = 32


class LearnedDigits:
    """Learns digits from the training clips of a set of moving digits.

    Args:
        data: The set.
    """

    def __init__(self, data: ClipDataModule) -> None:
        self._data = data

    @cached_property
    def classifier(self) -> DigitClassifier:
        """The trained classifier.

        Raises:
            ValueError: If the set's classes are not the ten digits.
        """
        if self._data.label_names != LABEL_NAMES:
            raise ValueError(f"{self._data.name}: its classes are not the ten digits, which are learnt from it")
        _log.info("Learning the digits of %s for a metric", self._data.name)
        with torch.random.fork_rng():  # training goes on with its own random numbers
            return train_classifier(self._batches())

    def _batches(self) -> Iterator[ClipBatch]:
        dataset, buckets = self._data.listed("train")
        num_clips = buckets[0].num_samples
        for epoch in count():
            order = randomness.permutation(0, "digits to learn", epoch, num_clips)
            for start in range(0, num_clips, _BATCH_SIZE):
                positions = tuple(order[start : start + _BATCH_SIZE])
                batch, _ = dataset[MicroBatch(positions, positions[0])]
                yield _readable(batch)


def _readable(batch: ClipBatch) -> ClipBatch:
    """Return the batch with its clips that can't be read replaced by its first that can."""
    good = (batch.weights > 0).nonzero()[:, 0].tolist()
    if not good:
        raise ValueError("a batch of clips of digits can't be read at all")
    rows = [row if row in good else good[0] for row in range(len(batch))]
    return batch.map(lambda tensor: tensor[rows])
