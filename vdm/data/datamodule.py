"""The data of a training run as a Lightning data module.

Longer than other files, as it is one interface: the options of ``conf/data`` with their meaning, and the methods that
Lightning and the training loop call. The modules that it imports do the work.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from weakref import WeakSet

import torch
from annotated_types import Interval, Len
from lightning import LightningDataModule

from vdm.data import order
from vdm.data.clips import ClipSampling
from vdm.data.dataset import ClipDataset, NoiseSource
from vdm.data.disk_cache import DiskCache
from vdm.data.loader import ClipLoader, FiniteClipLoader, TrainingPositions, ValidationPositions
from vdm.data.mixing import Bucket, ListedOrder, MixedOrder, Order
from vdm.data.motion import check_measurable
from vdm.data.quarantine import Quarantine, check_report
from vdm.data.random_images import RandomImages
from vdm.data.saved_order import check_same_order, keys_of
from vdm.data.sets import TRAIN, VALIDATION, ShardSet, Split
from vdm.data.shards import Shape, StoredLatents, StoredText
from vdm.data.stored import common_latents, common_text, read_empty_text
from vdm.data.text_embeddings import TextEmbedding
from vdm.data.usable_clips import check_splits, log_captions, log_unusable
from vdm.processes import is_first_of_machine
from vdm.ranges import Count, CountOrZero, Folder, Location, NumProcesses, Positive, Seed, Share, Size
from vdm.types import ClipBatch


class ClipDataModule(LightningDataModule):
    """Clips of shard sets, in an order that depends on the seed, the sets and ``global_batch_size`` alone.

    Training is endless: the trainer needs ``max_steps``, ``use_distributed_sampler=False`` and
    ``accumulate_grad_batches=datamodule.accumulation(world_size)``, and calls ``consumed`` after each optimizer step.

    All clips of an optimizer step have one shape; where there are several, steps of different shapes alternate in the
    proportion of their clips. A set of pictures, which are clips of one frame, trains beside sets of videos like that.

    Args:
        path: Folder of the shard set, or its URL; a list of sets or shards, mixed as if they were one set
            (``SETS/{a,b}``, see ``vdm.data.shard_lists``); or several of these, each with the share of samples that
            come from it, in any unit: ``{"videos": 3, "s3://bucket/pictures": 1}``.
        global_batch_size: G, samples in one optimizer step, over all processes and accumulated micro-batches.
        micro_batch_size: Samples that one process handles at once, at most, of whatever shape.
        clips: How stored clips are sampled; None takes each whole.
        stored_latents: Whether to read the latents that shards have beside clips, in place of pixels.
        stored_text: Whether to read stored text embeddings instead of encoding the captions of clips; captions of
            images beside clips are still encoded.
        num_workers: Loader processes beside each training process; 0 loads in the training process.
        seed: Seed of the order, the choice of images and the sampling of clips.
        num_streams: Distant parts of a set that are read in turn; more streams mix better and keep more shards open.
        shuffle_window: Number of successive samples of a stream that are shuffled among each other.
        num_images_per_clip: Frames of other clips put beside each clip as independent images.
        overfit_one_batch: Whether every step trains on the samples of the first; positions, and so the noise, advance.
        check_shards: Whether the first process of each machine refuses a set whose shards are missing or do not match
            the index, before training begins; otherwise training uses the undamaged samples and reports the others.
        max_bad_fraction: Share of samples that may prove unusable before the run stops, 0 to 1.
        max_validation_clips: Clips of the validation split in use, spread evenly over it; 0 for no validation,
            None for all.
        cache_path: Local folder that caches the data of remote sets; None caches nothing.
        cache_gib: Size of that folder in GiB, to 5% for each process that loads.
        quarantine_path: Report of unusable samples; None puts ``quarantine.jsonl`` in the trainer's root folder.
    """

    def __init__(
        self,
        path: Folder | Annotated[Mapping[Location, Positive], Len(1, 1000)],
        global_batch_size: Size,
        micro_batch_size: Size,
        clips: ClipSampling | None = None,
        stored_latents: bool = False,
        stored_text: bool = False,
        num_workers: NumProcesses = 1,
        seed: Seed = 0,
        num_streams: Size = 64,
        shuffle_window: Count = 1024,
        num_images_per_clip: Annotated[int, Interval(ge=0, le=10_000)] = 0,
        overfit_one_batch: bool = False,
        check_shards: bool = True,
        max_bad_fraction: Share = 0.05,
        max_validation_clips: CountOrZero | None = 256,
        cache_path: Folder | None = None,
        cache_gib: Positive = 50.0,
        quarantine_path: Folder | None = None,
    ) -> None:
        super().__init__()
        _check_at_least(1, global_batch_size=global_batch_size, micro_batch_size=micro_batch_size)
        _check_at_least(1, num_streams=num_streams, shuffle_window=shuffle_window)
        _check_at_least(0, num_workers=num_workers, num_images_per_clip=num_images_per_clip)
        _check_at_least(0, max_validation_clips=max_validation_clips or 0)
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction={max_bad_fraction}: must lie between 0 and 1")
        self.weights = (
            {str(one): weight for one, weight in path.items()} if isinstance(path, Mapping) else {str(path): 1.0}
        )
        """Share of each set by its path."""
        _check_weights(self.weights)
        self.sampling = clips or ClipSampling()
        if stored_latents and not (self.sampling.keeps_clips and num_images_per_clip == 0):
            raise ValueError(
                "stored_latents=True: latents can't be cut, flipped or shown as images; use all of each clip, and "
                "data.num_images_per_clip=0"
            )
        self.stored_latents = stored_latents
        self.stored_text = stored_text
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.num_streams = num_streams
        self.shuffle_window = shuffle_window
        self.num_images_per_clip = num_images_per_clip
        self.overfit_one_batch = overfit_one_batch
        self.check_shards = check_shards
        self.max_bad_fraction = max_bad_fraction
        self.max_validation_clips = max_validation_clips
        self.cache = None if cache_path is None else DiskCache(Path(cache_path), cache_gib)
        if quarantine_path is not None:
            check_report(Path(quarantine_path))
        self.quarantine_path = quarantine_path
        self.pixels_beside_latents: Literal["none", "first", "all"] = "none"
        """The frames whose pixels are read beside latents; see ``add_image_conditions``."""
        self.has_motion = False
        """Whether batches have the motion of clips; see ``add_image_conditions``."""
        self.noise_source: NoiseSource | None = None
        """Draws the noise of training ahead; see ``prefetch_noise``."""
        self._loaders: WeakSet[ClipLoader] = WeakSet()
        self._order: MixedOrder | None = None
        self.position = 0
        """First position not yet trained on."""

    @cached_property
    def sets(self) -> tuple[ShardSet, ...]:
        """The sets, their indices read once."""
        check = self.check_shards and is_first_of_machine()  # thousands that list a large folder would bring it down
        return tuple(
            one
            for path, weight in self.weights.items()
            for one in ShardSet.open_listed(path, weight, self.sampling, check)
        )

    @cached_property
    def training(self) -> Split:
        """The samples to train on."""
        return Split.of(self.sets, TRAIN, self.sampling)

    @cached_property
    def validation(self) -> Split:
        """The held-out samples."""
        return Split.of(self.sets, VALIDATION, self.sampling.without_chance())

    def check(self) -> None:
        """Read the indices now, before training begins.

        Raises:
            ValueError: In one line, if a set has no index or no training samples, if there is nothing to validate, or
                if the sets differ in their classes.
        """
        check_splits(self.sets, self.training, self.validation, self.sampling, self.max_validation_clips != 0)
        _ = self.label_names, self.latents, self.text, self._empty_text
        log_unusable(self.training, self.validation, self.sampling)

    def report_captions(self) -> None:
        """Log how many training clips have no caption, for a model that takes text; see ``log_captions``."""
        log_captions(self.sets)

    def prefetch_noise(self, noise_source: NoiseSource) -> None:
        """Have the loader's workers, if there are any, also draw the noise of the coming training step."""
        self.noise_source = noise_source

    def add_image_conditions(self, pixels: Literal["none", "first", "all"], motion: bool) -> None:
        """Add to batches what image-to-video models are conditioned on.

        Args:
            pixels: The frames whose pixels are read beside latents.
            motion: Whether to add the motion of clips.

        Raises:
            ValueError: If motion can't be measured here.
        """
        if motion:
            check_measurable()
        self.pixels_beside_latents, self.has_motion = pixels, motion

    @property
    def name(self) -> str:
        """The paths of all sets."""
        return ", ".join(self.weights)

    @property
    def clip_shapes(self) -> tuple[Shape, ...]:
        """The shapes of clips: frames, rows, columns."""
        return tuple(sorted({bucket.shape for bucket in (*self.training.buckets, *self.validation.buckets)}))

    @property
    def clip_shape(self) -> Shape:
        """The largest shape of clips."""
        return max(self.clip_shapes, key=lambda shape: shape[0] * shape[1] * shape[2])

    @property
    def fps(self) -> float | None:
        """Frames per second of all sampled clips, or None if they differ."""
        if self.sampling.fps is not None:
            return self.sampling.fps
        rates = {one.index.fps for one in self.sets}
        rate = rates.pop() if len(rates) == 1 else None
        return None if rate is None else rate / self.sampling.frame_stride

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes; a clip's label is an index into them.

        Raises:
            ValueError: If two sets have different ones.
        """
        named = {one.index.labels: one.path for one in self.sets if one.index.labels}
        if len(named) > 1:
            raise ValueError(f"{', '.join(named.values())}: sets with different classes can't be mixed")
        return next(iter(named), ())

    @cached_property
    def latents(self) -> StoredLatents | None:
        """The latents that are read in place of pixels, or None.

        Raises:
            ValueError: See ``common_latents``.
        """
        return common_latents(self.sets, self.clip_shapes) if self.stored_latents else None

    @cached_property
    def text(self) -> StoredText | None:
        """The text embeddings that are read in place of encoding captions, or None.

        Raises:
            ValueError: See ``common_text``.
        """
        return common_text(self.sets) if self.stored_text else None

    @cached_property
    def _empty_text(self) -> TextEmbedding | None:
        return read_empty_text(self.sets[0]) if self.stored_text else None

    @property
    def num_train_samples(self) -> int:
        """N, number of training clips."""
        return self.training.num_samples

    def accumulation(self, world_size: int) -> int:
        """Return A, the number of micro-batches of each rank in one optimizer step."""
        return order.accumulation(self.global_batch_size, self.micro_batch_size, world_size)

    def loss_scale(self, world_size: int) -> float:
        """Return R A / G, the factor of a micro-batch's sum of weighted losses."""
        return order.loss_scale(self.global_batch_size, self.micro_batch_size, world_size)

    def consumed(self, num_samples: int) -> None:
        """Advance the position by ``num_samples``, counted over all ranks: G after each step."""
        assert num_samples % self.global_batch_size == 0, "only whole optimizer steps are consumed"
        self.position += num_samples

    def bucket_of_step(self) -> tuple[int, int]:
        """Return the bucket of the optimizer step at the present position, and how many earlier steps it had."""
        assert self._order is not None, "training has begun"
        position = self.position % self.global_batch_size if self.overfit_one_batch else self.position
        bucket, number = self._order.bucket_of(position)
        return bucket, (self.position if self.overfit_one_batch else number) // self.global_batch_size

    def setup(self, stage: str) -> None:
        """Read the indices."""
        self.check()

    def train_dataloader(self) -> ClipLoader:
        """Return the endless micro-batches of this rank, from ``position`` on at each new iteration."""
        split = self.training
        weights = [one.weight for one in self.sets]
        samples = MixedOrder(
            self.seed, split.buckets, weights, self.global_batch_size, self.num_streams, self.shuffle_window
        )
        self._order = samples
        images = RandomImages(self.seed, self.num_images_per_clip, samples) if self.num_images_per_clip else None
        period = self.global_batch_size if self.overfit_one_batch else None
        noise_source = self.noise_source if self.num_workers else None
        dataset = self._dataset(split, samples, self.sampling, images, period, noise_source)
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
        num_clips = min(self.validation.num_samples, self.max_validation_clips or self.validation.num_samples)
        loader = FiniteClipLoader(
            self._validation_set(),
            self._validation_positions(num_clips, *self._rank_and_world_size()),
            self.num_workers,
            self._quarantine(),
        )
        self._loaders.add(loader)
        return loader

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        """Copy a batch asynchronously; Lightning would block, as a ``ClipBatch`` is no tensor."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def held_out_clips(self, num_clips: int) -> ClipBatch | None:
        """Return some validation clips of one shape, the same on every rank; None if there is none."""
        num_clips = min(self.validation.num_samples, num_clips)
        if num_clips == 0:
            return None
        positions = self._validation_positions(num_clips, rank=0, world_size=1, micro_batch_size=num_clips)
        batches = FiniteClipLoader(self._validation_set(), positions, 0, self._quarantine())
        return max(batches, key=len)

    def listed(self, split: Literal["train", "validation"]) -> tuple[ClipDataset, Sequence[Bucket]]:
        """Return the pixels of a split's clips, cut as for validation, bucket by bucket in the order of the index."""
        sampling = self.sampling.without_chance()
        found = self.validation if split == VALIDATION else Split.of(self.sets, TRAIN, sampling)
        return self._dataset(found, ListedOrder(found.buckets), sampling, with_latents=False), found.buckets

    def _validation_positions(
        self, num_clips: int, rank: int, world_size: int, micro_batch_size: int | None = None
    ) -> ValidationPositions:
        counts = [bucket.num_samples for bucket in self.validation.buckets]
        return ValidationPositions(counts, num_clips, micro_batch_size or self.micro_batch_size, rank, world_size)

    def _validation_set(self) -> ClipDataset:
        return self._dataset(self.validation, ListedOrder(self.validation.buckets), self.sampling.without_chance())

    def _dataset(
        self,
        split: Split,
        samples: Order,
        sampling: ClipSampling,
        images: RandomImages | None = None,
        period: int | None = None,
        noise_source: NoiseSource | None = None,
        with_latents: bool = True,
    ) -> ClipDataset:
        latent_shapes = self.latents.shapes if with_latents and self.latents is not None else None
        readers = split.readers(self.sets, self.cache)
        return ClipDataset(
            readers,
            samples,
            split.buckets,
            sampling,
            self.seed,
            [one.index.labels for one in self.sets],
            latent_shapes,
            self._empty_text,
            images,
            period,
            self.pixels_beside_latents,
            self.has_motion,
            noise_source,
        )

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
        """Return the position, and the settings and samples on which its meaning depends."""
        return {"position": self.position, "order": self._order_settings(), "keys": keys_of(self.sets)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved position.

        Raises:
            ValueError: If positions meant other samples when it was saved.
        """
        check_same_order(state_dict, self._order_settings(), self.sets)
        self.position = state_dict["position"]

    def _order_settings(self) -> dict[str, Any]:
        names = ("seed", "global_batch_size", "num_streams", "shuffle_window")
        weights = [str(one.weight) for one in self.sets]
        return {**{name: getattr(self, name) for name in names}, "clips": self.training.describe(), "weights": weights}

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _quarantine(self) -> Quarantine:
        path = self.quarantine_path
        if path is None and self.trainer:
            path = Path(self.trainer.default_root_dir) / "quarantine.jsonl"
        return Quarantine(Path(path) if path else None, self.max_bad_fraction)


def _check_weights(weights: Mapping[str, float]) -> None:
    if not weights:
        raise ValueError("path={}: names no set")
    for path, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ValueError(f"path: {path}: its weight is {weight}; must be above 0")


def _check_at_least(minimum: int, **values: int) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name}={value}: must be at least {minimum}")
