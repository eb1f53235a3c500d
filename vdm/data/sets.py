"""The shard sets of a run, with the weights in which they are mixed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import blake2b

from vdm.data.clips import ClipSampling
from vdm.data.disk_cache import DiskCache
from vdm.data.index import ShardIndex, check_sizes_of, read_index
from vdm.data.mixing import Bucket, fill_buckets
from vdm.data.reading import ShardReader
from vdm.data.shard_lists import listed_sets
from vdm.data.shard_table import ShardTable
from vdm.data.spot_checks import check_shards
from vdm.data.storage import open_folder

TRAIN = "train"
VALIDATION = "validation"


@dataclass(frozen=True)
class ShardSet:
    """A set that has been found."""

    path: str
    weight: Fraction
    index: ShardIndex

    @staticmethod
    def open(path: str, weight: float, check: bool = True, shards: Collection[str] | None = None) -> "ShardSet":
        """Read a set's index.

        Args:
            path: Folder with index.json, or its URL.
            weight: Share of the samples that come from this set, in any unit.
            check: Whether to look that the shards are those of the index.
            shards: Names of the shards to use, see ``ShardIndex.chosen``; None uses all.

        Raises:
            ValueError: In one line, if there is no index, or no such shard, or the shards are not those of the index;
                see ``check_shards``.
        """
        folder = open_folder(path)
        index = read_index(folder, check_sizes=False)
        if shards is not None:
            try:
                index = index.chosen(shards)
            except KeyError as error:
                raise ValueError(f"{folder.path_of(error.args[0])}: the index of the set has no such shard") from None
        if check:
            check_sizes_of(folder, index)
            check_shards(folder, index)
        folder.close()
        return ShardSet(path, Fraction(str(weight)), index)

    @staticmethod
    def open_listed(path: str, weight: float, sampling: ClipSampling, check: bool = True) -> list["ShardSet"]:
        """Read the indices of the sets that a list stands for.

        The sets of a list are mixed as if they were one: they share ``weight`` in proportion to their usable training
        samples, so that all samples are seen equally often.

        Args:
            path: One set, or a list of sets or shards; see ``vdm.data.shard_lists``.
            weight: Share of the samples that come from all of these sets, in any unit.
            sampling: Says which samples are usable.
            check: As for ``open``.

        Raises:
            ValueError: As for ``open`` and ``listed_sets``.
        """
        sets = [ShardSet.open(one.path, weight, check, one.shards) for one in listed_sets(path)]
        if len(sets) == 1:
            return sets
        counts = [Split.of([one], TRAIN, sampling).num_samples for one in sets]
        total = max(1, sum(counts))
        return [
            replace(one, weight=one.weight * Fraction(count, total)) for one, count in zip(sets, counts, strict=True)
        ]

    def shards(self, split: str) -> ShardTable:
        """The shards of a split; none if the set lacks it."""
        splits = self.index.splits
        return splits[split] if split in splits else ShardTable.of(())


@dataclass(frozen=True)
class Split:
    """One split of all sets, sorted into buckets."""

    shards: tuple[ShardTable, ...]
    """Of each set."""
    rates: tuple[float | None, ...]
    """Frames per second of each set's clips, where the index does not count them by rate."""
    buckets: tuple[Bucket, ...]
    num_unusable: int
    """Samples left out because they are too short, or their rate too low."""

    @staticmethod
    def of(sets: Sequence[ShardSet], name: str, sampling: ClipSampling) -> "Split":
        """Sort the samples of a split into buckets."""
        shards = tuple(one.shards(name) for one in sets)
        rates = tuple(one.index.fps for one in sets)
        return Split(shards, rates, *fill_buckets(shards, rates, sampling.shape_of))

    @property
    def num_samples(self) -> int:
        """Number of usable samples of all sets."""
        return sum(bucket.num_samples for bucket in self.buckets)

    def readers(self, sets: Sequence[ShardSet], cache: DiskCache | None) -> list[ShardReader]:
        """Return the source of each set's samples; ``cache`` keeps what is read of remote ones."""
        folders = (open_folder(one.path, cache) for one in sets)
        return list(map(ShardReader, folders, self.shards, self.rates))

    def describe(self) -> str:
        """Return how many samples each bucket has of each shard, in few words: two orders differ if these do.

        Which samples these are, ``ShardTable.keys`` tells.
        """
        digest = blake2b(digest_size=4)
        for bucket in self.buckets:
            for number, counts in bucket.samples_per_shard.items():
                digest.update(f"{bucket.shape} {number} ".encode() + counts.astype("<i8").tobytes())
        shapes = ", ".join(f"{bucket.num_samples} of {'x'.join(map(str, bucket.shape))}" for bucket in self.buckets)
        return f"{shapes} ({digest.hexdigest()})"
