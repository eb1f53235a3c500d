"""Loading of small sets, which the tests of data share."""

import dataclasses
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vdm.data.datamodule import ClipDataModule
from vdm.data.order import PADDING
from vdm.types import ClipBatch, TensorRecord


class FakeTrainer:
    """What the data module asks its trainer for."""

    def __init__(self, global_rank: int, world_size: int) -> None:
        self.global_rank, self.world_size = global_rank, world_size
        self.default_root_dir = tempfile.mkdtemp()


def module(
    path: str | Path | dict[str, float], rank: int = 0, world_size: int = 1, **changes: object
) -> ClipDataModule:
    """Return a data module of small steps, as rank ``rank`` of ``world_size`` has it."""
    settings: dict[str, Any] = {
        "global_batch_size": 6,
        "micro_batch_size": 4,
        "num_workers": 0,
        "num_streams": 3,
        "shuffle_window": 4,
    }
    data = ClipDataModule(path, **(settings | changes))
    data.trainer = FakeTrainer(rank, world_size)
    return data


def take(loader: Iterable[ClipBatch], num_batches: int) -> list[ClipBatch]:
    return list(islice(loader, num_batches))


def keys_by_position(batches: Iterable[ClipBatch]) -> dict[int, str]:
    """Return the keys of the samples by their positions, none of which may occur twice."""
    pairs = [pair for b in batches for pair in zip(b.positions.tolist(), b.keys, strict=True)]
    real = [pair for pair in pairs if pair[0] != PADDING]
    assert len({position for position, _ in real}) == len(real), "a position was loaded twice"
    return dict(real)


def assert_equal(batch: TensorRecord, other: TensorRecord) -> None:
    for field in dataclasses.fields(batch):
        value, other_value = getattr(batch, field.name), getattr(other, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other_value), field.name
        elif isinstance(value, TensorRecord):
            assert_equal(value, other_value)
        else:
            assert value == other_value, field.name
