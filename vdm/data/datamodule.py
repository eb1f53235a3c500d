"""The data of a training run as Lightning wants it."""

from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning import LightningDataModule

from vdm.data import order
from vdm.data.dataset import ClipDataset, RandomImages
from vdm.data.loader import ClipLoader, FiniteClipLoader, TrainingPositions, ValidationPositions
from vdm.data.order import IndexOrder, ShuffledOrder
from vdm.data.quarantine import Quarantine
from vdm.data.reading import ShardReader
from vdm.data.shards import Shape, ShardEntry, ShardIndex, read_index
from vdm.types import ClipBatch

TRAIN = "train"
VALIDATION = "validation"


class ClipDataModule(LightningDataModule):
    """Clips of a shard set, in an order that depends on the seed, the set and ``global_batch_size`` alone.

    Training is endless: the trainer needs ``max_steps``, ``use_distributed_sampler=False`` and
    ``accumulate_grad_batches=datamodule.accumulation(world_size)``, and calls ``consumed`` after each optimizer step.

    Args:
        path: Folder of the shard set.
        global_batch_size: G, samples in one optimizer step, over all processes and accumulated micro-batches.
        micro_batch_size: Samples that one process handles at once, at most.
        num_workers: Loader processes beside each training process; 0 loads in the training process.
        seed: Seed of the order and of the choice of images.
        num_streams: Distant parts of the set that are read in turn; more mix better and keep more shards open.
        shuffle_window: Successive samples of a stream among which the order is random.
        num_images_per_clip: Frames of other clips put beside each clip as independent images.
        overfit_one_batch: Whether all steps see the samples of the first; positions, and noise with them, go on.
        max_bad_fraction: Share of samples that may prove unusable before the run stops, 0 to 1.
        max_validation_clips: Clips of the validation split in use, spread evenly over it; 0 for no validation,
            None for all.
        quarantine_path: Report of unusable samples; None puts ``quarantine.jsonl`` in the trainer's root folder.
    """

    def __init__(
        self,
        path: str | Path,
        global_batch_size: int,
        micro_batch_size: int,
        num_workers: int = 1,
        seed: int = 0,
        num_streams: int = 64,
        shuffle_window: int = 1024,
        num_images_per_clip: int = 0,
        overfit_one_batch: bool = False,
        max_bad_fraction: float = 0.05,
        max_validation_clips: int | None = 256,
        quarantine_path: str | Path | None = None,
    ) -> None:
        super().__init__()
        _check_at_least(1, global_batch_size=global_batch_size, micro_batch_size=micro_batch_size)
        _check_at_least(1, num_streams=num_streams, shuffle_window=shuffle_window)
        _check_at_least(0, num_workers=num_workers, num_images_per_clip=num_images_per_clip)
        _check_at_least(0, max_validation_clips=max_validation_clips or 0)
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction={max_bad_fraction}: must lie between 0 and 1")
        self.path = Path(path)
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.num_streams = num_streams
        self.shuffle_window = shuffle_window
        self.num_images_per_clip = num_images_per_clip
        self.overfit_one_batch = overfit_one_batch
        self.max_bad_fraction = max_bad_fraction
        self.max_validation_clips = max_validation_clips
        self.quarantine_path = quarantine_path
        self._loaders: WeakSet[ClipLoader] = WeakSet()
        self.position = 0
        """First position not yet trained on."""

    @cached_property
    def index(self) -> ShardIndex:
        """The set's index, read once.

        Raises:
            ValueError: If there is none, or the set has no training samples, several shapes or too few splits.
        """
        index = read_index(self.path)
        needed = (TRAIN,) if self.max_validation_clips == 0 else (TRAIN, VALIDATION)
        for split in needed:
            if not index.splits.get(split) or index.num_samples(split) == 0:
                hint = "; max_validation_clips=0 trains without" if split == VALIDATION else ""
                raise ValueError(f"{self.path}: the set has no samples in the split '{split}'{hint}")
        shapes = _shapes(index)
        if len(shapes) > 1:
            names = ", ".join("x".join(map(str, shape)) for shape in shapes)
            raise ValueError(f"{self.path}: clips of several shapes ({names}); build a set with one shape")
        return index

    def check(self) -> None:
        """Raise the ``ValueError`` of ``index`` now, before training begins."""
        _ = self.index

    @property
    def clip_shape(self) -> Shape:
        """Shape of every clip: frames, rows, columns."""
        return _shapes(self.index)[0]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes; a clip's label is an index into them."""
        return self.index.labels

    @property
    def num_train_samples(self) -> int:
        """N, number of training clips."""
        return self.index.num_samples(TRAIN)

    def accumulation(self, world_size: int) -> int:
        """Return A, the number of micro-batches of each rank in one optimizer step."""
        return order.accumulation(self.global_batch_size, self.micro_batch_size, world_size)

    def loss_scale(self, world_size: int) -> float:
        """Return R A / G, the factor of a micro-batch's sum of weighted losses."""
        return order.loss_scale(self.global_batch_size, self.micro_batch_size, world_size)

    def consumed(self, num_samples: int) -> None:
        """Note that ``num_samples`` more positions have been trained on, over all ranks: G after each step."""
        assert num_samples % self.global_batch_size == 0, "only whole optimizer steps are consumed"
        self.position += num_samples

    def setup(self, stage: str) -> None:
        """Read the index."""
        self.check()

    def train_dataloader(self) -> ClipLoader:
        """Return the endless micro-batches of this rank, from ``position`` on at each new iteration."""
        shards = self.index.splits[TRAIN]
        samples = ShuffledOrder(self.seed, _counts(shards), self.num_streams, self.shuffle_window)
        images = RandomImages(self.seed, self.num_images_per_clip, samples.reach) if self.num_images_per_clip else None
        period = self.global_batch_size if self.overfit_one_batch else None
        dataset = ClipDataset(ShardReader(self.path, shards), samples, self.clip_shape, images, period)
        positions = TrainingPositions(
            lambda: self.position, self.global_batch_size, self.micro_batch_size, *self._rank_and_world_size()
        )
        loader = ClipLoader(dataset, positions, self.num_workers, self._quarantine())
        self._loaders.add(loader)
        return loader

    def val_dataloader(self) -> FiniteClipLoader | list[ClipBatch]:
        """Return this rank's part of the validation clips, in the order of the index; no batches if there are none."""
        if self.max_validation_clips == 0:
            return []
        num_samples = self.index.num_samples(VALIDATION)
        num_clips = min(num_samples, self.max_validation_clips or num_samples)
        positions = ValidationPositions(num_samples, num_clips, self.micro_batch_size, *self._rank_and_world_size())
        loader = FiniteClipLoader(self._validation_set(), positions, self.num_workers, self._quarantine())
        self._loaders.add(loader)
        return loader

    def held_out_clips(self, num_clips: int) -> ClipBatch | None:
        """Return some validation clips, spread evenly over the split, the same on every rank; None if there is none."""
        num_samples = self.index.num_samples(VALIDATION) if VALIDATION in self.index.splits else 0
        if num_samples == 0:
            return None
        num_clips = min(num_samples, num_clips)
        positions = ValidationPositions(num_samples, num_clips, num_clips, rank=0, world_size=1)
        return next(iter(FiniteClipLoader(self._validation_set(), positions, 0, self._quarantine())))

    def _validation_set(self) -> ClipDataset:
        shards = self.index.splits[VALIDATION]
        return ClipDataset(ShardReader(self.path, shards), IndexOrder(_counts(shards)), self.clip_shape)

    def teardown(self, stage: str) -> None:
        """End the loaders' workers."""
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        """End the loaders' workers."""
        self.close()

    def close(self) -> None:
        """End the workers of all loaders in use; the trainer does so when it ends."""
        for loader in list(self._loaders):
            loader.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what gives positions their meaning."""
        return {"position": self.position, "order": self._order_settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: If positions meant other samples when it was saved.
        """
        for name, value in self._order_settings().items():
            saved = state_dict["order"][name]
            if value != saved:
                raise ValueError(f"{name}={value}: the checkpoint was trained with {saved}, and its order goes by that")
        self.position = state_dict["position"]

    def _order_settings(self) -> dict[str, int]:
        names = ("seed", "global_batch_size", "num_streams", "shuffle_window", "num_train_samples")
        return {name: getattr(self, name) for name in names}

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _quarantine(self) -> Quarantine:
        path = self.quarantine_path
        if path is None and self.trainer:
            path = Path(self.trainer.default_root_dir) / "quarantine.jsonl"
        return Quarantine(Path(path) if path else None, self.max_bad_fraction)


def _check_at_least(minimum: int, **values: int) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name}={value}: must be at least {minimum}")


def _shapes(index: ShardIndex) -> list[Shape]:
    return sorted({shape for shards in index.splits.values() for shard in shards for shape in shard.shapes})


def _counts(shards: tuple[ShardEntry, ...]) -> list[int]:
    return [shard.num_samples for shard in shards]
