"""The shard sets of a run, with the weights in which they are mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

from vdm.data.clips import ClipSampling
from vdm.data.disk_cache import DiskCache
from vdm.data.mixing import Bucket, fill_buckets
from vdm.data.reading import ShardReader
from vdm.data.shards import ShardEntry, ShardIndex, checksum, read_index
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

    def shards(self, split: str) -> tuple[ShardEntry, ...]:
        """The shards of a split; none if the set lacks it."""
        return self.index.splits.get(split, ())

    def identity(self, split: str) -> dict[str, str | None]:
        """Return what tells the samples of a split, in their order, from those of another set, wherever they lie.

        Two are the same if either digest is: ``keys`` of their keys, None where the index lacks it, or ``shards`` of
        all that the shards hold.
        """
        shards = self.shards(split)
        keys = [shard.keys for shard in shards]
        return {
            "keys": None if None in keys else _digest(keys),
            "shards": _digest([shard.checksum for shard in shards]),
        }

    def has_samples(self, split: str, identity: Mapping[str, str | None]) -> bool:
        """Whether a split's samples are those that ``identity`` described."""
        own = self.identity(split)
        return any(value is not None and value == identity[name] for name, value in own.items())


@dataclass(frozen=True)
class Split:
    """One split of all sets, sorted into buckets."""

    shards: tuple[tuple[ShardEntry, ...], ...]
    """Of each set."""
    buckets: tuple[Bucket, ...]
    num_unusable: int
    """Samples left out because they are too short."""

    @staticmethod
    def of(sets: Sequence[ShardSet], name: str, sampling: ClipSampling) -> "Split":
        """Sort the samples of a split into buckets."""
        shards = tuple(one.shards(name) for one in sets)
        return Split(shards, *fill_buckets(shards, sampling.shape_of))

    @property
    def num_samples(self) -> int:
        """Number of usable samples of all sets."""
        return sum(bucket.num_samples for bucket in self.buckets)

    def readers(self, sets: Sequence[ShardSet], cache: DiskCache | None) -> list[ShardReader]:
        """Return the source of each set's samples; ``cache`` keeps what is read of remote ones."""
        folders = (open_folder(one.path, cache) for one in sets)
        return [ShardReader(folder, shards) for folder, shards in zip(folders, self.shards, strict=True)]

    def describe(self) -> str:
        """Return how many samples each bucket has of each shard, in few words: two orders differ if these do.

        Which samples these are, ``ShardSet.identity`` tells.
        """
        counts = {"x".join(map(str, bucket.shape)): dict(bucket.samples_per_shard.items()) for bucket in self.buckets}
        digest = blake2b(repr(counts).encode(), digest_size=4).hexdigest()
        shapes = ", ".join(f"{bucket.num_samples} of {'x'.join(map(str, bucket.shape))}" for bucket in self.buckets)
        return f"{shapes} ({digest})"


def _digest(values: Sequence[str | None]) -> str:
    return checksum(repr(values).encode())
