"""``python -m tests.data.load_large_batches``: take batches of 1 MiB over from a worker, hold them all and check them.

A mistake or a shortage ends it with one line and exit code 2.
"""

import sys
from itertools import islice
from typing import Any

import torch

from vdm.data.loader import ClipLoader, TrainingPositions
from vdm.data.order import MicroBatch
from vdm.data.quarantine import Quarantine
from vdm.types import ClipBatch

NUM_BATCHES = 8


class LargeBatches:
    """In the place of a data set; every pixel of a batch has its number."""

    def __getitem__(self, batch: MicroBatch) -> tuple[ClipBatch, tuple[()]]:
        number = batch.positions[0]
        video = torch.full((1, 3, 8, 256, 172), number, dtype=torch.uint8).permute(0, 1, 2, 4, 3)
        zero = torch.zeros(1)
        return ClipBatch(video, ("",), zero.long(), torch.tensor([number]), zero + 1, ("",), zero), ()


def _main() -> None:
    dataset: Any = LargeBatches()
    loader = ClipLoader(dataset, TrainingPositions(lambda: 0, 1, 1, 0, 1), 1, Quarantine(None, 0.0))
    try:
        taken = list(islice(loader, NUM_BATCHES))
    finally:
        loader.close()
    for number, batch in enumerate(taken):
        assert torch.equal(batch.video, torch.full_like(batch.video, number))
        assert batch.video.shape == (1, 3, 8, 172, 256)
        assert batch.video.stride(-2) == 1


if __name__ == "__main__":
    try:
        _main()
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
