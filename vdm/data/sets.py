"""The shard sets of a run, with the weights in which they are mixed."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

from vdm.data.clips import ClipSampling
from vdm.data.disk_cache import DiskCache
from vdm.data.index import ShardIndex, read_index
from vdm.data.mixing import Bucket, fill_buckets
from vdm.data.reading import ShardReader
from vdm.data.shard_table import ShardTable
from vdm.data.spot_checks import check_shards
from vdm.data.storage import open_folder


@dataclass(frozen=True)
class ShardSet:
    """A set that has been found."""

    path: str
    weight: Fraction
    index: ShardIndex

    @staticmethod
    def open(path: str, weight: float, check: bool = True) -> "ShardSet":
        """Read a set's index.

        Args:
            path: Folder with index.json, or its URL.
            weight: Share of the samples that come from this set, in any unit.
            check: Whether to look that the shards are those of the index.

        Raises:
            ValueError: In one line, if there is none, or its shards are not those of it; see ``check_shards``.
        """
        folder = open_folder(path)
        index = read_index(folder, check_sizes=check)
        if check:
            check_shards(folder, index)
        folder.close()
        return ShardSet(path, Fraction(str(weight)), index)

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
