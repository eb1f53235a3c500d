"""The clips of shard sets as a source."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from threading import local
from typing import Literal

from vdm.data.datamodule import ClipDataModule
from vdm.data.dataset import ClipDataset, LoadedBatch
from vdm.data.order import MicroBatch
from vdm.data.shards import Shape
from vdm.evaluation.clip_rule import ClipRule
from vdm.evaluation.sources.base import Block, UnusableClip, Views, shuffled, view
from vdm.evaluation.sources.video_folder import ahead

SplitName = Literal["train", "validation"]


class ShardClips:
    """Clips of a split, as the data module cuts them for validation, spread evenly over it, in a fixed random order.

    Args:
        data: The shard sets.
        split: Which of their splits.
        max_clips: Clips in use, at most; None for all.
        shape: Frames, rows and columns of the clips in use; None for clips of all shapes.
        num_threads: Clips that are decoded at once.

    Raises:
        ValueError: If the split has no usable clips.
    """

    block_size = 16

    def __init__(
        self,
        data: ClipDataModule,
        split: SplitName = "validation",
        max_clips: int | None = None,
        shape: Shape | None = None,
        num_threads: int = 2,
    ) -> None:
        self.name = data.name
        self.data, self._num_threads = data, num_threads
        self._split: SplitName = split
        buckets = data.listed(split)[1]
        ends = accumulate(bucket.num_samples for bucket in buckets)
        found = [
            range(end - bucket.num_samples, end)
            for bucket, end in zip(buckets, ends, strict=True)
            if shape in (None, bucket.shape)
        ]
        positions = range(found[0].start, found[-1].stop) if found else range(0)
        if not positions:
            raise ValueError(f"{data.name}: no usable clips in its split {split}")
        num_clips = min(len(positions), max_clips or len(positions))
        self._positions = shuffled([positions[number * len(positions) // num_clips] for number in range(num_clips)])
        self._of_thread = local()

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def identity(self) -> str:
        """SHA-256 of the checksums of the split's shards, and of how clips are cut."""
        digest = hashlib.sha256(f"{self._split} {self.data.sampling} {self._positions}\n".encode())
        for one in self.data.sets:
            for shard in one.shards(self._split):
                digest.update(f"{shard.name} {shard.checksum}\n".encode())
        return digest.hexdigest()

    def views(self, blocks: Sequence[Block], rules: Collection[ClipRule]) -> Iterator[tuple[int, Views]]:
        """See ``ClipSource.views``."""
        numbers = [number for block in blocks for number in block]
        views = ahead(lambda number: self._views(number, rules), numbers, self._num_threads)
        yield from zip(numbers, views, strict=True)

    def batch(self, numbers: Sequence[int]) -> LoadedBatch:
        """Return some clips of one shape; those that can't be read have the weight 0, and the faults say why."""
        positions = tuple(self._positions[number] for number in numbers)
        return self._dataset()[MicroBatch(positions, positions[0])]

    def _views(self, number: int, rules: Collection[ClipRule]) -> Views:
        batch, faults = self.batch([number])
        if faults:
            return dict.fromkeys(
                rules, UnusableClip(faults[0].key or str(number), faults[0].reason, is_unreadable=True)
            )
        label, fps = int(batch.labels[0]), float(batch.fps[0])
        known = (batch.keys[0], fps, batch.captions[0], None if label < 0 else label)
        return {rule: view(batch.video[0], rule, *known) for rule in rules}

    def _dataset(self) -> ClipDataset:
        """Return the samples, with files of this thread's own."""
        if not hasattr(self._of_thread, "dataset"):
            self._of_thread.dataset = self.data.listed(self._split)[0]
        return self._of_thread.dataset
